"""Detectors' raw outputs are torchvision's: classes and deltas of every cell, and of regions."""

from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import encdec
from encdec import papers
from encdec.decoders.fpn import FPN, Strided
from encdec.encoders.resnet import ResNet
from encdec.encoders.ssd import SSDTrunk
from encdec.heads.dense import Dense, rpn
from encdec.heads.regions import MaskHead, TwoFC
from encdec.model import EncoderDecoder
from encdec.weights import convert
from encdec.weights.networks import names
from tests.oracles import cases, detection
from tests.oracles.cases import Case
from tests.oracles.detection import CASES, CLASSES, KINDS, WIDTH
from tests.weights.two_stage import Parts, detector

QUICK = {"xla_backend_optimization_level": 0}
TRUNK = ResNet((1, 1, 1, 1), "bottleneck", 4)
EXTRAS = ((32, 8, 16), (64, 4, 8), (100, 4, 8), (300, 4, 8))


def narrow_retinanet() -> EncoderDecoder:
    model = papers.retinanet(CLASSES, TRUNK)
    assert model.head.kinds(model.decoder.outputs()) == KINDS
    return model.clone(
        decoder=model.decoder.clone(channels=WIDTH), head=model.head.clone(channels=WIDTH)
    )


def narrow_ssd() -> EncoderDecoder:
    trunk = SSDTrunk(channels=(2, 4, 8, 16, 16), fc=(32, 32), extras=EXTRAS)
    return papers.ssd300(CLASSES).clone(encoder=trunk)


def narrow_two_stage() -> EncoderDecoder:
    model = detector(CLASSES, True, TRUNK)
    head = Parts(
        rpn(channels=WIDTH), TwoFC(CLASSES, 16), MaskHead(CLASSES, channels=WIDTH, depth=2)
    )
    return model.clone(decoder=model.decoder.clone(channels=WIDTH), head=head)


NARROW = {
    "retinanet": narrow_retinanet(),
    "ssd300": narrow_ssd(),
    "two_stage": narrow_two_stage(),
}
WHOLE = {
    "retinanet_resnet50_fpn": papers.retinanet(91),
    "retinanet_resnet50_fpn_v2": papers.retinanet(91).clone(
        decoder=FPN((8, 16, 32), coarser=Strided()), head=Dense(91, norm="group")
    ),
    "ssd300_vgg16": papers.ssd300(91),
    "fasterrcnn_resnet50_fpn": detector(91, False, encdec.resnet50()),
    "maskrcnn_resnet50_fpn": detector(91, True, encdec.resnet50()),
}


def outputs(model: EncoderDecoder, case: Case) -> dict[str, jax.Array]:
    """Ours, from weights in torchvision's names and layout; "class/0" is the finest level's."""
    images = jnp.asarray(cases.images(case), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    table = convert.published(shapes, names(model, "torchvision"), "torchvision")
    flat = flatten_dict(shapes, sep="/")
    given = {}
    for path, name in table.items():
        shape = convert.theirs(path, name, np.empty(flat[path].shape, bool)).shape
        given[name] = detection.tensor(name, shape)
    variables, told = convert.imported(given, shapes, table, spare=lambda name: False)
    assert told.taken == len(flat)
    found = jax.jit(model.apply, compiler_options=QUICK)(variables, images)
    del found["anchors"]
    return dict(by_level(found))


def by_level(found: dict[str, Any]) -> Any:
    for name, x in found.items():
        if isinstance(x, dict):
            yield from ((f"{name}/{level}", x[stride]) for level, stride in enumerate(sorted(x)))
        else:
            yield name, x


@pytest.mark.paper(
    "torchvision retinanet_resnet50_fpn, ssd300_vgg16, fasterrcnn_resnet50_fpn",
    says="logits and deltas of every anchor, of regions, and masks",
    does="equal to 1e-4 of an output's largest, from the same weights, level by level",
    differs="sizes that the stride does not divide: SSD's poolings all round up here",
)
@pytest.mark.parametrize("name", CASES)
def test_a_detectors_outputs_are_torchvisions(name):
    found, theirs = outputs(NARROW[name], CASES[name]), cases.stored(name)
    ours = {f"{key}/output": cases.sketch(key, x) for key, x in found.items()}
    assert set(ours) == set(theirs)
    assert all(np.abs(values).max() > 0.1 for values in theirs.values())
    worst, where = cases.difference(ours, theirs)
    assert worst < 1e-4, where


@pytest.fixture(scope="module")
def make():
    for library in ("torch", "torchvision"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_detection

    return make_detection


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", CASES)
def test_the_stored_outputs_are_what_torchvision_computes(make, name):
    again, stored = make.computed(name), cases.stored(name)
    assert set(again) == set(stored)
    assert cases.difference(again, stored)[0] < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", detection.WHOLE)
def test_outputs_of_whole_nets_are_torchvisions(make, name):
    """Every number of every output, to 1e-4 of the output's largest."""
    theirs = make.outputs(make.whole(name), detection.WHOLE[name])
    ours = outputs(WHOLE[name], detection.WHOLE[name])
    assert set(ours) == set(theirs)
    worst = max(np.abs(ours[k] - x).max() / np.abs(x).max() for k, x in theirs.items())
    print(f"{name}: {worst:.1e}")
    for key, wanted in theirs.items():
        assert ours[key].shape == wanted.shape
        np.testing.assert_allclose(ours[key], wanted, rtol=0, atol=1e-4 * abs(wanted).max())
