"""What regions cost: classes, boxes and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.tasks.two_stage import TwoStage, cut

KEY = jax.random.key(0)
LABEL = np.int32([[2, 0, 1, -1], [0, 0, -1, -1]])
"""Two images: objects of class 2 and 1, three of background, three not drawn."""


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs(masks=False):
    found = {
        "region_class": draw(2, 4, 3),
        "region_box": draw(2, 4, 3, 4, seed=1),
        "region_delta": draw(2, 4, 4, seed=2),
        "region_label": LABEL,
    }
    if masks:
        found["region_mask"] = draw(2, 2, 4, 4, 3, seed=3)
        found["region"] = np.float32([[[0, 0, 8, 8], [2, 2, 6, 6]]] * 2)
        found["region_id"] = np.int32([[5, 0], [0, 0]])
    return jax.tree.map(jnp.asarray, found)


def test_losses_of_regions_by_hand():
    found = outputs()
    shares = TwoStage(2).loss(found, {}, KEY)
    logits = np.asarray(found["region_class"])
    entropy = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(
        logits, np.maximum(LABEL, 0)[..., None], -1
    )[..., 0]  # fmt: skip
    assert float(shares["class"][0]) == pytest.approx(entropy[LABEL >= 0].sum(), rel=1e-5)
    away = 0.0
    for place in ((0, 0), (0, 2)):
        x = abs(found["region_box"][place][LABEL[place]] - found["region_delta"][place])
        away += float(jnp.where(x < 1, x**2 / 2, x - 0.5).sum())
    assert float(shares["box"][0]) == pytest.approx(away, rel=1e-5)
    assert shares["class"][1] == shares["box"][1] == 5 and set(shares) == {"class", "box"}


@pytest.mark.parametrize(
    "name, places",
    [
        ("region_class", (LABEL < 0)[..., None]),
        ("region_box", (LABEL[..., None] != np.array([9, 1, 2]))[..., None]),
        ("region_delta", (LABEL <= 0)[..., None]),
    ],
)
def test_what_was_not_drawn_and_other_classes_boxes_change_nothing(name, places):
    found = outputs()
    places = np.broadcast_to(places, found[name].shape)
    assert places.any() and not places.all()
    other = found | {name: jnp.where(places, 7.0, found[name])}
    jax.tree.map(
        np.testing.assert_array_equal,
        TwoStage(2).loss(found, {}, KEY),
        TwoStage(2).loss(other, {}, KEY),
    )


def test_a_mask_is_cut_from_the_regions_own_instance():
    instances = np.zeros((10, 12), np.int32)
    instances[2:6, 3:9], instances[6:8, 3:9] = 4, 7
    regions = jnp.asarray(np.float32([[2, 3, 6, 9], [0, 0, 8, 12], [2, 3, 6, 9]]))
    like = jnp.zeros((3, 4, 4))
    found = np.asarray(cut(jnp.asarray(instances), regions, jnp.array([4, 7, 9]), like))
    assert found[0].all() and not found[2].any()
    wanted = (instances == 7)[np.ix_([1, 3, 5, 7], [1, 4, 7, 10])]
    np.testing.assert_array_equal(found[1], wanted)


@pytest.mark.paper(
    "Mask R-CNN §3",
    says="average binary cross entropy of the true class's mask, of objects alone",
    does="that",
    differs="the truth is read at the middles of the cells, not resized",
)
def test_the_loss_of_masks_by_hand():
    found, instances = outputs(masks=True), np.zeros((2, 8, 8), np.int32)
    instances[0, :4] = 5
    loss = TwoStage(2, masks=True).loss(found, {"instances": jnp.asarray(instances)}, KEY)["mask"]
    logits = np.asarray(found["region_mask"])[0, 0, :, :, 2]
    inside = np.arange(4)[:, None] < 2  # of 4 rows two are in the upper half
    wanted = np.where(inside, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits)))
    assert float(loss[0]) == pytest.approx(wanted.sum(), rel=1e-5) and loss[1] == 16
    loud = found | {"region_mask": found["region_mask"].at[..., :2].set(9.0).at[0, 1].set(9.0)}
    again = TwoStage(2, masks=True).loss(loud, {"instances": jnp.asarray(instances)}, KEY)["mask"]
    assert again[0] == loss[0]


def test_regions_without_any_object_cost_only_their_class():
    found = outputs(masks=True) | {"region_label": jnp.minimum(LABEL, 0)}
    found |= {"region_id": jnp.zeros((2, 2), jnp.int32)}
    batch = {"instances": jnp.zeros((2, 8, 8), jnp.int32)}
    shares = TwoStage(2, masks=True).loss(found, batch, KEY)
    assert shares["box"][0] == shares["mask"][0] == shares["mask"][1] == 0 < shares["class"][0]


def test_classes_keys_and_scores_of_masks():
    task = TwoStage(2, masks=True)
    assert (task.logits, task.keys[-1], TwoStage(2).keys[-1]) == (3, "instances", "areas")
    boxes, masks = np.float32([[0, 0, 4, 4]]), np.zeros((1, 8, 8), bool)
    masks[0, :4, :4] = True
    one = {"boxes": boxes, "classes": np.int32([1]), "masks": masks}
    truth = one | {"crowd": np.zeros(1, bool), "box_mask": np.ones(1, bool)}
    half = one | {"masks": masks & (np.arange(8) < 2), "scores": np.float32([0.9])}
    scores = task.scores([task.record(half, truth)])
    assert scores["ap"] == 1 and scores["mask_ap"] == pytest.approx(0.1)
    assert {"mask_ap50/1", "ap50/1", "mask_ar100"} <= set(scores)
