"""Detectors' weights go out under torchvision's names and come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import papers, weights
from encdec.encoders.resnet import ResNet
from encdec.encoders.ssd import SSDTrunk
from encdec.errors import InputError
from encdec.geometry import next_good_size
from encdec.heads.dense import Dense, rpn
from encdec.heads.regions import MaskHead, TwoFC
from encdec.weights.commands import network
from encdec.weights.detection import detects
from encdec.weights.files import read
from tests.weights.two_stage import Parts, detector

TRUNK = ResNet((1, 1, 1, 1), "bottleneck", 4)
EXTRAS = ((32, 2, 3), (64, 2, 3), (100, 2, 3), (300, 2, 3))
RETINANET = papers.retinanet(3, TRUNK)
NETS = {
    "retinanet": RETINANET.clone(
        decoder=RETINANET.decoder.clone(channels=4), head=Dense(3, RETINANET.head.anchors, 2, 4)
    ),
    "ssd": papers.ssd300(3).clone(encoder=SSDTrunk((1,) * 5, (2, 3, 4, 5, 6), (7, 8), EXTRAS)),
    "two stages": detector(3, True, TRUNK).clone(
        decoder=papers.fpn_rpn(TRUNK).decoder.clone(channels=4),
        head=Parts(rpn(channels=4), TwoFC(3, 5), MaskHead(3, 4, 1)),
    ),
}


def drawn(model, seed):
    size = (1, *next_good_size(model, (64, 64)), 3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(size)))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(abs(random.normal(size=s.shape)), s.dtype), shapes)


@pytest.mark.parametrize("name", NETS)
def test_weights_go_out_and_come_back(name, tmp_path):
    model, path = NETS[name], tmp_path / "net.safetensors"
    variables = drawn(model, 1)
    weights.export(path, model, variables, source="torchvision")
    told = []
    same, again = weights.load(
        path, model, drawn(model, 2), source="torchvision", report=told.append
    )
    assert same == model and jax.tree.all(jax.tree.map(np.array_equal, again, variables))
    assert told[0].taken == len(jax.tree.leaves(variables)) and not told[0].dropped


def test_layouts_are_torchs(tmp_path):
    """fc6 reads channels, rows, columns; the up-convolution's kernel is (in, out, h, w)."""
    model, path = NETS["two stages"], tmp_path / "net.safetensors"
    variables = drawn(model, 1)
    weights.export(path, model, variables, source="torchvision")
    theirs, head = read(path), jax.tree.map(np.asarray, variables["params"]["head"])
    fc6 = theirs["roi_heads.box_head.fc6.weight"]
    assert fc6.shape == (5, 4 * 7 * 7)
    assert fc6[3, 2 * 49 + 1 * 7 + 6] == head["box"]["fc6"]["kernel"][1, 6, 2, 3]
    up = theirs["roi_heads.mask_predictor.conv5_mask.weight"]
    assert up.shape == (4, 4, 2, 2)
    assert theirs["roi_heads.box_predictor.bbox_pred.weight"].shape == (12, 5)


def test_a_pretrained_encoder_alone_goes_under_a_detector(tmp_path):
    encoder, path = TRUNK, tmp_path / "trunk.safetensors"
    trunk = {k: t["encoder"] for k, t in drawn(NETS["retinanet"], 3).items() if "encoder" in t}
    weights.export(path, encoder, trunk, source="torchvision")
    model = NETS["retinanet"]
    _, new = weights.load(path, model, drawn(model, 2), source="torchvision", part="encoder")
    assert jax.tree.all(jax.tree.map(np.array_equal, new["params"]["encoder"], trunk["params"]))


def test_whole_detectors_can_be_asked_for_by_name():
    model = network("retinanet_resnet50_fpn", classes=91)
    assert model.encoder.epsilon == 0 and model.head == papers.retinanet(91).head
    assert network("ssd300_vgg16", classes=91) == papers.ssd300(91)


def test_which_nets_are_torchvisions_detectors():
    assert all(detects(model) for model in NETS.values())
    for other in (papers.fpn_rpn(), papers.semantic_fpn(), TRUNK):
        assert not detects(other)
    with pytest.raises(InputError, match="torchvision has no names for a ResNet . FPN . Dense"):
        weights.networks.names(papers.fpn_rpn(), "torchvision")
