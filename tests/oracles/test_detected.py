"""Detectors find what torchvision's find, from the image to the last suppression; losses too."""

from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from encdec import boxes
from encdec.anchors import pyramid, ssd300
from encdec.heads.dense import rpn
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import MaskHead, TwoFC
from encdec.model import EncoderDecoder
from encdec.tasks.detect import Detect, Focal, Mined, Propose, Sampled
from encdec.tasks.task import Task
from encdec.tasks.two_stage import TwoStage
from encdec.weights import convert
from encdec.weights.commands import network
from encdec.weights.networks import names
from tests.oracles import box_cases, cases, detected
from tests.oracles.cases import Case
from tests.oracles.detection import CLASSES, WIDTH
from tests.oracles.test_detection import QUICK, narrow_retinanet, narrow_ssd, narrow_two_stage

CUT = {"candidates": detected.CANDIDATES, "number": detected.NUMBER}
PROPOSE = Propose(number=detected.PROPOSALS)


def narrow_rcnn(mask: bool) -> EncoderDecoder:
    model = narrow_two_stage()
    head = RCNN(
        rpn(pyramid(rounded=True), WIDTH),
        TwoFC(CLASSES, 16),
        MaskHead(CLASSES, WIDTH, 2) if mask else None,
        pool="align",
        canonical=detected.CANONICAL,
        candidates=(detected.CANDIDATES,) * 2,
        proposals=(detected.PROPOSALS,) * 2,
        detections=detected.NUMBER,
    )
    return model.clone(head=head)


SSD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
NARROW: dict[str, tuple[EncoderDecoder, Task]] = {
    "retinanet": (narrow_retinanet(), Detect(CLASSES, **CUT)),
    "ssd300": (
        narrow_ssd(),
        Detect(
            CLASSES - 1,
            Mined(),
            best="first",
            weights=SSD_WEIGHTS,
            threshold=0.01,
            overlap=0.45,
            **CUT,
        ),
    ),
    "fasterrcnn": (narrow_rcnn(False), TwoStage(CLASSES - 1)),
    "maskrcnn": (narrow_rcnn(True), TwoStage(CLASSES - 1, masks=True)),
}
ATOL = {"labels": 0, "scores": 1e-5, "masks": 1e-5, "boxes": 1e-3, "proposals": 1e-3, "every": 2e-3}
"""Of boxes in pixels; "every" are the proposals before suppression, not cut at the image."""


def variables_of(name: str, model: EncoderDecoder, images: jax.Array) -> Any:
    """From weights in torchvision's names and layout."""
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    table = convert.published(shapes, names(model, "torchvision"), "torchvision")
    flat, given = flatten_dict(shapes, sep="/"), {}
    for path, theirs in table.items():
        shape = convert.theirs(path, theirs, np.empty(flat[path].shape, bool)).shape
        given[theirs] = detected.tensor(theirs, shape, name)
    variables, told = convert.imported(given, shapes, table, spare=lambda name: False)
    assert told.taken == len(flat)
    return variables


def found(name: str, model: EncoderDecoder, task: Task, case: Case) -> dict[str, np.ndarray]:
    """As `make_detected.found`."""
    images = jnp.asarray(cases.images(case), jnp.float32)
    variables, size = variables_of(name, model, images), jnp.array([case.size[1:3]] * case.size[0])

    def run(variables: Any, images: jax.Array) -> dict[str, Any]:
        outputs = model.apply(variables, images, train=False)
        best = task.decode(outputs, size)
        if not isinstance(task, TwoStage):
            return {"found": best}
        every = [
            boxes.decode(outputs["box"][s], outputs["anchors"][s][None])
            for s in sorted(outputs["anchors"])
        ]
        proposed = model.head.propose(outputs, size, False)
        return {"found": best, "proposed": proposed, "every": jnp.concatenate(every, 1)}

    parts = jax.device_get(jax.jit(run, compiler_options=QUICK)(variables, images))
    more = {"every": parts["every"]} if "every" in parts else {}
    for i in range(case.size[0]):
        real = parts["found"]["valid"][i]
        own = {key: x[i][real] for key, x in parts["found"].items() if key != "valid"}
        first = 0 if name.startswith("retinanet") else 1  # torchvision's number of our class 0
        own["labels"] = own.pop("classes") + first
        more |= {f"{i}/{key}": x for key, x in own.items()}
        if "proposed" in parts:
            more[f"{i}/proposals"] = parts["proposed"]["boxes"][i][parts["proposed"]["valid"][i]]
    return more


@pytest.mark.paper(
    "torchvision retinanet_resnet50_fpn, ssd300_vgg16, fasterrcnn_resnet50_fpn",
    says="what they find in an image: boxes, labels, scores, masks; and the RPN's proposals",
    does="the same ones in the same order: boxes to 1e-3 pixels, scores and masks to 1e-5",
    differs="narrow nets, in float32 against float64",
)
@pytest.mark.parametrize("name", NARROW)
def test_a_detector_finds_what_torchvisions_finds(name):
    ours = found(name, *NARROW[name], detected.CASES[name])
    every = cases.stored("detected")
    theirs = {k.partition("/")[2]: x for k, x in every.items() if k.startswith(f"{name}/")}
    assert set(ours) == set(theirs)
    for key, wanted in theirs.items():
        kind = key.rpartition("/")[2]
        large = kind in ("masks", "every")
        own = cases.sketch(key, ours[key]) if large else ours[key]
        assert own.shape == wanted.shape, key
        np.testing.assert_allclose(own, wanted, rtol=0, atol=ATOL[kind], err_msg=key)


def objects(more: int = 3) -> dict[str, jax.Array]:
    """A batch of the one image, its boxes padded."""
    truth, padding = detected.truth(), [(0, more), (0, 0)]
    return {
        "boxes": jnp.asarray(np.pad(truth["boxes"], padding))[None],
        "classes": jnp.asarray(np.pad(truth["classes"], padding[0]))[None],
        "box_mask": jnp.arange(detected.TRUTH + more)[None] < detected.TRUTH,
        "crowd": jnp.zeros((1, detected.TRUTH + more), bool),
        "index": jnp.array([0]),
        "size": jnp.array([box_cases.SIZE]),
    }


TASKS = {
    "rpn": (
        pyramid(rounded=True).on({s: box_cases.MAPS[s] for s in (4, 8, 16, 32, 64)}),
        Propose(1, Sampled(10**6, 1.0)),
    ),
    "retinanet": (
        pyramid(
            strides=(8, 16, 32, 64, 128), octaves=(0.0, 1 / 3, 2 / 3), rounded=True
        ).on({s: box_cases.MAPS[s] for s in (8, 16, 32, 64, 128)}),
        Detect(CLASSES, Focal()),
    ),
    "ssd": (
        ssd300().on(box_cases.SSD_MAPS),
        Detect(CLASSES - 1, Mined(), best="first", negative=0.5, weights=SSD_WEIGHTS, beta=1.0),
    ),
}  # fmt: skip


@pytest.mark.paper(
    "torchvision rpn, retinanet, ssd, roi_heads",
    says="losses of classes and boxes",
    does="equal to 1e-5, with the same anchors and truth, in one image",
    differs="of several images: its RetinaNet averages images, ours objects; images without an "
    "object count as one here in SSD too; masks' truth is read by nearest neighbour, not RoIAlign",
)
@pytest.mark.parametrize("name", TASKS)
def test_losses_of_anchors_are_torchvisions(name):
    anchors, task = TASKS[name]
    rows = {s: len(x) for s, x in anchors.items()}
    logits, deltas = detected.given(name, sum(rows.values()), task.logits)
    ends = np.cumsum([rows[s] for s in sorted(rows)])[:-1]
    outputs = {
        "class": dict(zip(sorted(rows), map(jnp.asarray, np.split(logits[None], ends, 1)))),  # noqa: B905
        "box": dict(zip(sorted(rows), map(jnp.asarray, np.split(deltas[None], ends, 1)))),  # noqa: B905
        "anchors": {s: jnp.asarray(x) for s, x in anchors.items()},
    }
    shares = jax.jit(task.loss)(outputs, objects(), jax.random.key(0))
    ours = [float(total / count) for total, count in (shares["class"], shares["box"])]
    np.testing.assert_allclose(ours, cases.stored("losses")[name], rtol=1e-5)


def test_losses_of_regions_are_torchvisions():
    """All regions and the truth boxes are drawn; each class has deltas of its own."""
    head = RCNN(number=10**4, share=1.0)
    near = jnp.asarray(detected.regions())[None]
    proposals = {"boxes": near, "valid": jnp.ones(near.shape[:2], bool)}
    batch = objects(0)

    class Drawing(RCNN):
        def __call__(self, *_: Any, **given: Any) -> Any:
            return self.drawn(given["found"], given["targets"])

    total = near.shape[1] + detected.TRUTH
    drawing = Drawing(number=total, share=1.0)
    drawn = drawing.apply(
        {}, None, found=proposals, targets=batch, rngs={"sample": jax.random.key(0)}
    )
    assert head.number > total == int((drawn["region_label"] >= 0).sum())
    every = jnp.concatenate([near, batch["boxes"]], 1)[0]
    place = (drawn["region"][0][:, None] == every[None]).all(-1).argmax(1)
    logits, deltas = detected.given("regions", total, CLASSES)
    scale = np.arange(1.0, CLASSES + 1, dtype=np.float32)
    outputs = drawn | {
        "region_class": jnp.asarray(logits)[place][None],
        "region_box": jnp.asarray(deltas[:, None] * scale[None, :, None])[place][None],
    }
    shares = TwoStage(CLASSES - 1, beta=1 / 9).loss(outputs, batch, jax.random.key(0))
    ours = [float(total / count) for total, count in (shares["class"], shares["box"])]
    np.testing.assert_allclose(ours, cases.stored("losses")["regions"], rtol=1e-5)


@pytest.fixture(scope="module")
def make():
    for library in ("torch", "torchvision"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_detected

    return make_detected


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_what_is_stored_is_what_torchvision_finds(make):
    again = {key: x for name in NARROW for key, x in make.computed(name).items()}
    for name, wanted in (("detected", again), ("losses", make.losses())):
        stored = cases.stored(name)
        assert set(stored) == set(wanted)
        for key, x in wanted.items():
            np.testing.assert_allclose(stored[key], x, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", detected.WHOLE)
def test_whole_nets_find_what_torchvisions_find(make, name):
    case = detected.WHOLE[name]
    theirs = make.found(name, make.whole(name), case)
    model = network(name, classes=91)
    model = model.clone(encoder=model.encoder.clone(epsilon=1e-5))  # without pretrained weights
    task = TwoStage(90) if "rcnn" in name else Detect(91, number=300)
    ours = found(name, model, task, case)
    assert set(ours) == set(theirs) and len(theirs["0/scores"]) > 20
    for key, wanted in theirs.items():
        atol = ATOL[key.rpartition("/")[2]]
        np.testing.assert_allclose(ours[key], wanted, rtol=0, atol=atol, err_msg=key)
