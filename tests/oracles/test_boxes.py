"""Boxes, anchors and regions are torchvision's, as `make_boxes` has stored them."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import anchors, boxes, regions
from tests.oracles import box_cases, cases

STORED = cases.stored("boxes")
THEIRS = {
    "rpn": (anchors.pyramid(rounded=True), (4, 8, 16, 32, 64)),
    "retinanet": (
        anchors.pyramid(strides=(8, 16, 32, 64, 128), octaves=(0.0, 1 / 3, 2 / 3), rounded=True),
        (8, 16, 32, 64, 128),
    ),
    "ssd": (anchors.ssd300(), tuple(box_cases.SSD_MAPS)),
}


def given(name: str, n: int) -> jax.Array:
    return jnp.asarray(box_cases.boxes(name, n))


def anchors_of(name: str) -> np.ndarray:
    ours, strides = THEIRS[name]
    maps = box_cases.SSD_MAPS if name == "ssd" else box_cases.MAPS
    return np.concatenate(list(ours.on({s: maps[s] for s in strides}).values()))


def test_measures_of_boxes_are_torchvisions():
    a, b = given("a", 12), given("b", 9)
    np.testing.assert_allclose(jax.jit(boxes.iou)(a, b), STORED["iou"], atol=1e-6)
    np.testing.assert_allclose(jax.jit(boxes.giou)(a[:9], b), STORED["giou"], atol=1e-6)


@pytest.mark.paper(
    "torchvision box coder",
    says="dx, dy by the anchor's size, dw, dh logarithms; weights 1, or 10, 10, 5, 5",
    does="the same deltas and boxes",
    differs="deltas of boxes without a size are finite",
)
@pytest.mark.parametrize("name", box_cases.WEIGHTS)
def test_deltas_and_boxes_are_torchvisions(name):
    weights, moved = box_cases.WEIGHTS[name], 3 * box_cases.draw("deltas", 9, 4)
    deltas = boxes.encode(given("a", 12)[:9], given("b", 9), weights)
    np.testing.assert_allclose(deltas, STORED[f"deltas/{name}"], rtol=1e-4, atol=1e-5)
    decoded = boxes.decode(jnp.asarray(moved, jnp.float32), given("b", 9), weights)
    np.testing.assert_allclose(decoded, STORED[f"decoded/{name}"], rtol=1e-5, atol=1e-3)


@pytest.mark.paper(
    "torchvision anchors",
    says="of the RPN, RetinaNet and SSD300; sides and corners of the first two whole pixels",
    does="the same boxes, with rounded=True",
    differs="on maps that do not divide the image torchvision's cells are less than a stride",
)
@pytest.mark.parametrize("name", THEIRS)
def test_anchors_are_torchvisions(name):
    ours = cases.sketch(name, anchors_of(name))
    np.testing.assert_allclose(ours, STORED[f"anchors/{name}"], rtol=1e-5, atol=1e-4)


@pytest.mark.paper(
    "torchvision matcher",
    says="by two thresholds, and each truth box's best anchors; SSD's own best ones",
    does="the same matches",
    differs="truth that no anchor overlaps makes nothing positive; there it makes all that overlap "
    "nothing",
)
@pytest.mark.parametrize("name", box_cases.RULES)
def test_matches_are_torchvisions(name):
    truth = given("truth", 15)
    near = jnp.asarray(box_cases.candidates(anchors_of("rpn")))
    iou = jax.jit(boxes.iou)(near, truth)
    rule = jax.jit(lambda iou: anchors.match(iou, jnp.ones(15, bool), **box_cases.RULES[name]))
    index, label = rule(iou)
    ours = np.where(label == 1, index, np.where(label == 0, -1, -2))
    np.testing.assert_array_equal(ours, STORED[f"matches/{name}"])
    assert len(set(ours)) > 5


def test_levels_are_torchvisions():
    found = regions.level(given("levels", 200) * 20, (4, 8, 16, 32))
    np.testing.assert_array_equal(found, STORED["levels"])
    assert set(np.asarray(found)) == {0, 1, 2, 3}


@pytest.mark.paper(
    "torchvision roi_align",
    says="bins are means of bilinear samples; aligned=True moves them by half a cell",
    does="the same values",
    differs="a fixed number of samples only",
)
@pytest.mark.parametrize("name", box_cases.ALIGN)
def test_roi_align_is_torchvisions(name):
    maps, (size, samples, aligned) = {8: jnp.asarray(box_cases.features())}, box_cases.ALIGN[name]
    pool = jax.jit(lambda maps, boxes: regions.roi_align(maps, boxes, size, samples, aligned))
    pooled = pool(maps, given("regions", 20)[None])
    np.testing.assert_allclose(cases.sketch(name, pooled), STORED[f"align/{name}"], atol=2e-5)


def ours_of(name: str) -> dict[str, jax.Array]:
    classes = {"rpn": 1, "retinanet": box_cases.CLASSES}.get(name, box_cases.CLASSES + 1)
    anchors, logits, deltas = map(jnp.asarray, box_cases.answers(name, classes))
    size, cut = jnp.array(box_cases.SIZE), box_cases.CUT
    if name == "regions":
        anchors, deltas = anchors[:, None], deltas.reshape(-1, classes, 4)
    else:
        deltas = deltas[:, :4]
    every = boxes.decode(deltas, anchors).reshape(-1, 4)
    every = boxes.clip(every, size).reshape(1, *deltas.shape)
    valid = jnp.ones((1, len(anchors)), bool)
    if name == "rpn":
        ends = np.cumsum(box_cases.LEVELS)[:-1]
        scores = jax.nn.sigmoid(logits[None, :, 0])
        return boxes.proposals(
            jnp.split(every, ends, 1), jnp.split(scores, ends, 1), smallest=1e-3, **cut
        )
    cut = cut | {"threshold": box_cases.THRESHOLD}
    if name == "retinanet":
        probs = jax.nn.sigmoid(logits)[None]
        return boxes.detections(every[:, :, None], probs, valid, levels=box_cases.LEVELS, **cut)
    probs = jax.nn.softmax(logits)[None, :, 1:]
    if name == "ssd":
        return boxes.detections_by_class(every, probs, **cut)
    cut["candidates"] = probs.size
    return boxes.detections(every[:, :, 1:], probs, valid, smallest=0.01, **cut)


@pytest.mark.paper(
    "torchvision detectors",
    says="candidates of every level (RPN, RetinaNet), of every class (SSD), of all (R-CNN); "
    "suppression by level, by class",
    does="the same boxes, scores and classes, best first",
    differs="lists of fixed length, with a mask",
)
@pytest.mark.parametrize("name", ["rpn", "retinanet", "regions", "ssd"])
def test_what_is_left_of_a_heads_answers_is_torchvisions(name):
    found = jax.jit(ours_of, static_argnums=0)(name)
    ours = [found["scores"][0, :, None], found["classes"][0, :, None], found["boxes"][0]]
    ours = np.concatenate(ours[::2] if name == "rpn" else ours, 1)[found["valid"][0]]
    theirs = STORED[f"answers/{name}"]
    assert 10 < len(theirs) <= box_cases.CUT["number"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_the_stored_detection_is_what_torchvision_computes():
    for library in ("torch", "torchvision"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_boxes

    again = make_boxes.computed()
    assert set(again) == set(STORED)
    for name, values in STORED.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_suppression_is_torchvisions():
    for library in ("torch", "torchvision"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    import torch
    from torchvision.extension import _has_ops

    from tests.oracles import make_boxes

    if not _has_ops():
        pytest.skip("this torchvision has no compiled operators")
    for seed in range(20):
        some = np.repeat(box_cases.boxes(f"nms {seed}", 50), 4, 0)
        some += box_cases.draw(f"shifts {seed}", 200, 4).astype(np.float32)
        scores = box_cases.draw(f"scores {seed}", 200).astype(np.float32)
        groups = np.arange(200) % 3
        theirs = make_boxes.ops.batched_nms(
            *(torch.from_numpy(x) for x in (some, scores, groups)), 0.5
        )
        ours = boxes.nms(*map(jnp.asarray, (some, scores, scores > -9)), 0.5, jnp.asarray(groups))
        np.testing.assert_array_equal(np.flatnonzero(ours), np.sort(theirs.numpy()))
