"""Regions: which are drawn, what is said of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import boxes
from encdec.anchors import pyramid
from encdec.errors import InputError
from encdec.heads.dense import rpn
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import MaskHead, TwoFC

SIZE = (32, 48)
MAPS = {
    s: jnp.asarray(np.random.default_rng(s).normal(size=(2, 32 // s, 48 // s, 6)), jnp.float32)
    for s in (4, 8, 16)
}
TRUTH = np.float32([[2, 3, 12, 14], [10, 20, 30, 44]])
HEAD = RCNN(
    rpn(pyramid((8.0, 16.0, 32.0), (4, 8, 16)), 6),
    TwoFC(4, 8),
    MaskHead(4, 6, 1),
    strides=(4, 8),
    canonical=28.0,
    candidates=(20, 15),
    proposals=(16, 12),
    number=8,
    detections=5,
    threshold=0.0,
)
FAST = HEAD.clone(rpn=None, mask=None)


def targets(objects=2, crowd=()):
    """Two images; the second has no object."""
    most = 3
    mask = np.arange(most)[None] < np.array([[objects], [0]])
    batch = {
        "boxes": np.stack([np.pad(TRUTH, ((0, 1), (0, 0)))] * 2),
        "classes": np.int32([[2, 0, 0]] * 2),
        "box_mask": mask,
        "crowd": np.isin(np.arange(most), crowd)[None] & mask,
        "ids": np.int32([[7, 9, 0]] * 2),
        "index": np.int32([0, 1]),
        "size": np.int32([SIZE, (20, 24)]),
    }
    return jax.tree.map(jnp.asarray, batch)


def variables(head, **given):
    return jax.jit(lambda: head.init(jax.random.key(0), MAPS, size=SIZE, train=False, **given))()


@pytest.fixture(scope="module")
def params():
    return variables(HEAD)


@pytest.fixture(scope="module")
def trained(params):
    """Outputs in training, as a function of the targets and the key."""

    @jax.jit
    def apply(batch, key):
        return HEAD.apply(params, MAPS, size=SIZE, train=True, targets=batch, rngs={"sample": key})

    return lambda batch, seed=0: jax.device_get(apply(batch, jax.random.key(seed)))


def test_what_a_head_gives_in_training(trained):
    found = trained(targets())
    shapes = {name: x.shape for name, x in found.items() if not isinstance(x, dict)}
    assert shapes == {
        "region_class": (2, 8, 4),
        "region_box": (2, 8, 4, 4),
        "region_label": (2, 8),
        "region_delta": (2, 8, 4),
        "region": (2, 2, 4),
        "region_id": (2, 2),
        "region_mask": (2, 2, 28, 28, 4),
    }
    assert set(found["class"]) == set(found["box"]) == set(found["anchors"]) == {4, 8, 16}


@pytest.mark.paper(
    "Fast R-CNN §2.3",
    says="a quarter of the regions are objects, IoU at least 0.5; the others background",
    does="at most a quarter; truth boxes are regions too",
    differs="background from IoU 0 on, not 0.1",
)
def test_regions_that_are_drawn(trained):
    for seed in range(3):
        found = trained(targets(), seed)
        label, place = found["region_label"], found["region"][0]
        assert ((label[0] > 0).sum(), (label[1] > 0).sum()) == (2, 0)
        assert (label[1] >= 0).sum() == min(8, (label[1] >= 0).sum()) > 2
        iou = np.asarray(boxes.iou(place, TRUTH))
        assert (iou.max(1) >= 0.5).all()
        wanted = iou.argmax(1)
        np.testing.assert_array_equal(label[0][:2], np.array([3, 1])[wanted])
        np.testing.assert_array_equal(found["region_id"], [np.array([7, 9])[wanted], [0, 0]])
        deltas = boxes.encode(TRUTH[wanted], place, HEAD.weights)
        np.testing.assert_allclose(found["region_delta"][0][:2], deltas, rtol=1e-4, atol=1e-4)


def test_the_draw_follows_the_key_and_the_place_in_the_batch(trained):
    one, same, other = (trained(targets(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["region_class"], same["region_class"])
    assert (one["region_class"] != other["region_class"]).any()


def test_a_crowd_is_no_object_and_no_background(trained):
    found = trained(targets(crowd=(1,)))
    assert set(found["region_label"][0].tolist()) <= {-1, 0, 3}
    whole = targets(1)
    whole["boxes"] = whole["boxes"].at[0, 0].set(jnp.array([0.0, 0.0, *SIZE]))
    whole["crowd"] = whole["box_mask"]
    assert (trained(whole)["region_label"][0] == -1).all()


def test_proposals_get_no_gradient_from_the_regions(params):
    """The regions' loss moves no parameter of the RPN."""

    def loss(params):
        found = HEAD.apply(
            params, MAPS, size=SIZE, train=True, targets=targets(), rngs={"sample": KEY}
        )
        return sum((found[k] ** 2).sum() for k in ("region_class", "region_box", "region_delta"))

    grads = jax.jit(jax.grad(loss))(params)["params"]
    assert not any(x.any() for x in jax.tree.leaves(grads["rpn"]))
    assert all(np.isfinite(x).all() and x.any() for x in jax.tree.leaves(grads["box"]))


KEY = jax.random.key(0)


def test_what_it_finds_lies_in_the_image_best_first(params):
    apply = jax.jit(lambda t: HEAD.apply(params, MAPS, size=SIZE, train=False, targets=t))
    found = jax.device_get(apply({"size": targets()["size"]}))
    assert found["masks"].shape == (2, 5, 28, 28) and found["boxes"].shape == (2, 5, 4)
    assert (np.diff(found["scores"]) <= 0).all() and found["classes"].max() < 3
    assert found["boxes"][0].max() <= 48 and found["boxes"][1][:, [1, 3]].max() <= 24
    assert (found["masks"] >= 0).all() and (found["masks"] <= 1).all()
    whole = jax.device_get(HEAD.apply(params, MAPS, size=SIZE, train=False))
    np.testing.assert_allclose(whole["boxes"][0], found["boxes"][0], atol=1e-4)


def test_fast_rcnn_takes_proposals_of_another_network(params):
    proposer = HEAD.rpn
    proposed = proposer.apply({"params": params["params"]["rpn"]}, MAPS, size=SIZE, train=False)
    own = {"params": {k: v for k, v in params["params"].items() if k == "box"}}
    fast = FAST.apply(own, MAPS, size=SIZE, train=False, proposed=proposed)
    whole = HEAD.clone(mask=None).apply(params, MAPS, size=SIZE, train=False)
    np.testing.assert_allclose(fast["boxes"], whole["boxes"], atol=1e-5)
    assert "anchors" not in fast and set(variables(FAST, proposed=proposed)["params"]) == {"box"}


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"share": 0.0}, "a share above 0"),
        ({"strides": ()}, "strides"),
        ({"candidates": (30, 0)}, "1 or more regions, candidates"),
        ({"pairs": 0}, "1 or more regions"),
        ({"box": TwoFC(3, 16)}, "the same classes"),
    ],
)
def test_fields_that_make_no_head(fields, said):
    with pytest.raises(InputError, match=said):
        HEAD.clone(**fields)


def test_strides_that_the_decoder_lacks_are_refused():
    with pytest.raises(InputError, match="the decoder gives no .64.: say --model.head.strides"):
        variables(HEAD.clone(strides=(*HEAD.strides, 64)))


@pytest.mark.parametrize("head, proposed", [(HEAD, {"anchors": {}}), (FAST, None)])
def test_there_is_one_that_proposes(head, proposed):
    said = "neither" if proposed is None else "both"
    with pytest.raises(InputError, match=f"an rpn in the head or a proposer .*; got {said}"):
        jax.eval_shape(
            lambda: head.init(jax.random.key(0), MAPS, size=SIZE, train=False, proposed=proposed)
        )


def test_dtype_is_of_every_part_and_boxes_stay_float32():
    low = HEAD.clone(dtype="bfloat16")
    assert low.rpn.dtype == low.box.dtype == low.mask.dtype == "bfloat16"
    maps = {s: jnp.asarray(x, jnp.bfloat16) for s, x in MAPS.items()}
    found = jax.eval_shape(
        lambda: low.init_with_output(jax.random.key(0), maps, size=SIZE, train=False)[0]
    )
    assert {found[k].dtype.name for k in ("boxes", "scores", "masks")} == {"float32"}
    assert low.classes == 4
