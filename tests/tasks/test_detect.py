"""What anchors are to find, what that costs, what is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import boxes
from encdec.anchors import pyramid
from encdec.errors import InputError
from encdec.tasks.detect import Detect, Mined, Propose, Sampled, joined

KINDS = pyramid((8.0, 16.0), (4, 8))
ANCHORS = {s: jnp.asarray(a) for s, a in KINDS.on({4: (8, 8), 8: (4, 4)}).items()}
ALL = np.concatenate([ANCHORS[4], ANCHORS[8]])
TRUTH = np.float32([[3, 4, 13, 12], [16, 8, 30, 26], [1, 20, 9, 31]])
RPN = Propose()
SSD = Detect(3, Mined(), negative=0.5, best="first")


def objects(truth=TRUTH, classes=(2, 0, 1), crowd=(), pad=2, images=1):
    """A batch of equal images with these objects."""
    n, most = len(truth), len(truth) + pad
    one = {
        "boxes": np.concatenate([np.reshape(truth, (-1, 4)), np.zeros((pad, 4))]),
        "classes": np.array([*classes[:n], *[0] * pad], np.int32),
        "box_mask": np.arange(most) < n,
        "crowd": np.isin(np.arange(most), crowd),
    }
    batch = {k: np.stack([v] * images) for k, v in one.items()}
    batch["boxes"] = batch["boxes"].astype(np.float32)
    batch |= {"index": np.arange(images, dtype=np.int32), "size": np.full((images, 2), 32)}
    return jax.tree.map(jnp.asarray, batch)


def outputs(classes, images=1, seed=0, scale=1.0):
    """Drawn logits and deltas; of scale 0 all are 0."""
    rng, found = np.random.default_rng(seed), {"anchors": ANCHORS}
    for name, values in (("class", classes), ("box", 4)):
        found[name] = {
            s: jnp.asarray(scale * rng.normal(size=(images, len(a), values)), jnp.float32)
            for s, a in ANCHORS.items()
        }
    return found


def means(task, found, batch, key=0):
    shares = jax.jit(task.loss)(found, batch, jax.random.key(key))
    return {name: float(total / count) for name, (total, count) in shares.items()}


def assigned(task, batch):
    one = {name: batch[name][0] for name in ("boxes", "classes", "box_mask", "crowd")}
    index, label = task.assign(jnp.asarray(ALL), one)
    return np.asarray(index), np.asarray(label)


@pytest.mark.paper(
    "FPN §4.1",
    says="anchors are objects above IoU 0.7 or as a truth box's best, background below 0.3",
    does="that; 256 of them are drawn, at most half objects; the others cost nothing",
    differs="",
)
def test_labels_and_the_sample_of_an_rpn():
    index, label = assigned(RPN, objects())
    iou = np.asarray(boxes.iou(ALL, TRUTH))
    best = (iou == iou.max(0)[None]).any(1)
    assert (iou.max(0) < 0.7).any() and best.sum() >= 3
    np.testing.assert_array_equal(label == 1, best | (iou.max(1) >= 0.7))
    np.testing.assert_array_equal(label == 0, ~best & (iou.max(1) < 0.3))
    np.testing.assert_array_equal(index[label == 1], iou.argmax(1)[label == 1])
    small = Sampled(number=24, share=0.5)
    for seed in range(3):
        _, count, chosen = small(
            jax.random.key(seed), jnp.zeros((len(ALL), 1)), jnp.asarray(index), jnp.asarray(label)
        )
        assert count == 24 and 0 < chosen.sum() <= 12
        assert set(label[np.asarray(chosen)]) == {1}


@pytest.mark.parametrize("best", ["ties", "first", "none"])
def test_a_truth_box_that_nothing_overlaps_much_has_its_best_anchors(best):
    """Its largest IoU is 0.25; the box lies in the middle of four equal anchors' overlap."""
    truth = np.float32([[8, 8, 12, 12]])
    task = Propose(best=best)
    iou = np.asarray(boxes.iou(ALL, truth))[:, 0]
    assert iou.max() == 0.25
    _, label = assigned(task, objects(truth))
    ties = np.flatnonzero(iou == iou.max())
    wanted = {"ties": list(ties), "first": list(ties[:1]), "none": []}[best]
    assert len(ties) > 1 and list(np.flatnonzero(label == 1)) == wanted


def test_an_anchor_between_the_thresholds_is_neither():
    halved = np.float32([[0, 0, 8, 8], [0, 16, 8, 32]])
    anchors = jnp.asarray(np.float32([[0, 0, 8, 8], [0, 0, 8, 4], [0, 24, 8, 32], [20, 0, 28, 8]]))
    one = {k: v[0] for k, v in objects(halved).items()}
    _, label = RPN.assign(anchors, one)
    np.testing.assert_array_equal(label, [1, -1, 1, 0])  # IoU 1, 0.5, 0.5 but the best, 0


@pytest.mark.paper(
    "FPN §4.1",
    says="an RPN's loss: log loss of the sample, and smooth L1 of its objects",
    does="ln 2 at logits of 0; without an object 256 are background and boxes cost nothing",
    differs="both are divided by the anchors that were drawn, as in the authors' later code",
)
def test_the_loss_at_zero_logits_is_ln_2():
    zero = outputs(1, scale=0.0)
    assert means(RPN, zero, objects())["class"] == pytest.approx(np.log(2), rel=1e-6)
    empty = objects(np.zeros((0, 4)))
    shares = RPN.loss(zero, empty, jax.random.key(0))
    assert shares["box"][0] == 0 and shares["class"][1] == min(256, len(ALL))
    assert float(shares["class"][0] / shares["class"][1]) == pytest.approx(np.log(2), rel=1e-6)


def by_hand(task, logits, deltas, index, label, classes):
    """Losses of one image in numpy: all of its anchors that count."""
    truth = np.zeros_like(logits)
    truth[label == 1, classes[index[label == 1]]] = 1
    p = 1 / (1 + np.exp(-logits))
    entropy = -truth * np.log(p) - (1 - truth) * np.log(1 - p)
    wanted = np.asarray(boxes.encode(TRUTH[index], ALL, task.weights))
    away = abs(deltas - wanted)
    beta = max(task.beta, 1e-12)
    smooth = np.where(away < beta, away**2 / (2 * beta), away - beta / 2).sum(-1)
    return p, truth, entropy, smooth[label == 1].sum()


def test_an_rpns_loss_by_hand():
    found, batch = outputs(1), objects()
    index, label = assigned(RPN, batch)
    logits, deltas = (np.asarray(joined(found[k]))[0] for k in ("class", "box"))
    every = Propose(1, Sampled(10**4, 1.0))
    _, _, entropy, moved = by_hand(every, logits, deltas, index, label, np.zeros(3, int))
    count = (label >= 0).sum()
    wanted = {"class": entropy[label >= 0].sum() / count, "box": moved / count}
    assert means(every, found, batch) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.paper(
    "RetinaNet §3.2",
    says="-α (1 - p)^γ log p of every anchor, over the anchors assigned to objects",
    does="that, α 0.25 and γ 2; of an image without objects the sum itself",
    differs="",
)
def test_the_focal_loss_by_hand():
    task, found, batch = Detect(3), outputs(3), objects()
    index, label = assigned(task, batch)
    logits, deltas = (np.asarray(joined(found[k]))[0] for k in ("class", "box"))
    p, truth, entropy, moved = by_hand(task, logits, deltas, index, label, np.array([2, 0, 1]))
    alpha, miss = np.where(truth, 0.25, 0.75), np.where(truth, 1 - p, p)
    total, count = (alpha * miss**2 * entropy)[label >= 0].sum(), (label == 1).sum()
    assert means(task, found, batch) == pytest.approx(
        {"class": total / count, "box": moved / count}, rel=1e-4
    )
    shares = task.loss(found, objects(np.zeros((0, 4))), jax.random.key(0))
    assert shares["class"][1] == 1 and shares["class"][0] > 0 and shares["box"][0] == 0


@pytest.mark.paper(
    "SSD §2.2",
    says="softmax loss of the objects and of at most three times as many hardest background boxes",
    does="that, over the objects; the first class is 1, background 0",
    differs="",
)
def test_the_mined_loss_by_hand():
    found, batch = outputs(4), objects()
    index, label = assigned(SSD, batch)
    logits = np.asarray(joined(found["class"]))[0]
    kinds = np.where(label == 1, np.array([2, 0, 1])[index] + 1, 0)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), kinds]
    count = (label == 1).sum()
    total = each[label == 1].sum() + np.sort(each[label == 0])[::-1][: 3 * count].sum()
    assert means(SSD, found, batch)["class"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("task", [RPN, Detect(3), SSD], ids=["rpn", "retinanet", "ssd"])
def test_padding_and_the_order_of_objects_change_nothing(task):
    found = outputs(task.logits)
    wanted = means(task, found, objects(pad=0))
    assert means(task, found, objects(pad=5)) == pytest.approx(wanted, rel=1e-6)
    turned = objects(TRUTH[::-1], (1, 0, 2))
    assert means(task, found, turned) == pytest.approx(wanted, rel=1e-6)


def test_nothing_is_learned_within_a_crowd():
    """Anchors that a crowd holds are neither, whatever they say."""
    batch = objects(crowd=(1,))
    task, found = Detect(3), outputs(3)
    inside = np.asarray(boxes.overlap(ALL, TRUTH[1:2]))[:, 0] > 0.5
    _, label = assigned(task, batch)
    assert inside.sum() > 5 and not (label[inside] == 0).any()
    rest = inside & (label == -1)
    ends = [len(ANCHORS[4])]
    loud = np.split(np.asarray(joined(found["class"])) + 9 * rest[None, :, None], ends, 1)
    other = found | {"class": dict(zip((4, 8), map(jnp.asarray, loud), strict=True))}
    assert means(task, other, batch) == pytest.approx(means(task, found, batch), rel=1e-6)


def test_what_is_drawn_follows_an_images_place_not_its_row():
    small = Propose(1, Sampled(8))
    found, batch = outputs(1, images=2), objects(images=2)
    turn = lambda tree: jax.tree.map(lambda x: x[::-1], tree)  # noqa: E731
    turned = turn({k: found[k] for k in ("class", "box")}) | {"anchors": ANCHORS}
    wanted = means(small, found, batch)
    assert means(small, turned, turn(batch)) == pytest.approx(wanted, rel=1e-6)
    assert means(small, turned, batch) != pytest.approx(wanted, rel=1e-3)
    assert means(small, found, batch, key=1) != pytest.approx(wanted, rel=1e-3)


def test_proposals_take_no_notice_of_classes():
    found = outputs(1)
    wanted = means(RPN, found, objects())
    assert means(RPN, found, objects(classes=(0, 0, 0))) == wanted


def perfect(task, images=1):
    """Outputs that say where the objects are: the anchor nearest to each, moved onto it."""
    logits = np.full((images, len(ALL), task.logits), -9, np.float32)
    deltas = np.zeros((images, len(ALL), 4), np.float32)
    if task.classify.background:
        logits[..., 0] = 9
    nearest = np.asarray(boxes.iou(ALL, TRUTH)).argmax(0)
    for k, (place, truth) in enumerate(zip(nearest, TRUTH, strict=True)):
        kind = (2, 0, 1)[k] * (task.classes > 1) + task.classify.background
        logits[:, place] = -9
        logits[:, place, kind] = 9 - k
        deltas[:, place] = boxes.encode(truth[None], ALL[place][None], task.weights)[0]
    ends = [len(ANCHORS[4])]
    split = lambda x: dict(zip((4, 8), map(jnp.asarray, np.split(x, ends, 1)), strict=True))  # noqa: E731
    return {"class": split(logits), "box": split(deltas), "anchors": ANCHORS}


@pytest.mark.parametrize("task", [RPN, Detect(3), SSD], ids=["rpn", "retinanet", "ssd"])
def test_perfect_outputs_are_the_truth_and_score_1(task):
    found = jax.jit(task.decode)(perfect(task), jnp.array([[32, 32]]))
    best = {name: np.asarray(x)[0][np.asarray(found["valid"])[0]] for name, x in found.items()}
    assert (np.diff(best["scores"]) <= 0).all()
    order = np.argsort(best["boxes"][:3, 0])[[1, 2, 0]]  # softmax says 1 of more than one
    np.testing.assert_allclose(best["boxes"][order], TRUTH, atol=1e-4)
    np.testing.assert_array_equal(best["classes"][order], [0] * 3 if task == RPN else [2, 0, 1])
    truth = {"boxes": TRUTH, "classes": np.int32([2, 0, 1]), "crowd": np.zeros(3, bool)}
    truth |= {"box_mask": np.ones(3, bool)}
    scores = task.scores([task.record(best, truth)])
    if task == RPN:
        assert scores["ar1000"] == scores["ar100"] == 1 and task.best_by == "ar1000"
    else:
        assert scores["ap"] == scores["ap50/2"] == 1 and task.best_by == "ap"


@pytest.mark.paper(
    "FPN §5.1",
    says="AR: recall averaged over IoU 0.5 to 0.95",
    does="proposals that are the truth have AR 1; with every IoU 0.72 half of it",
    differs="",
)
def test_recall_of_proposals_that_are_a_little_off():
    truth = {"boxes": np.float32([[0, 0, 100, 100]]), "classes": np.int32([3])}
    truth |= {"crowd": np.zeros(1, bool), "box_mask": np.ones(1, bool)}
    for side, recall in ((100, 1.0), (72, 0.5)):
        found = {"boxes": np.float32([[0, 0, 100, side]]), "classes": np.int32([0])}
        found["scores"] = np.float32([0.9])
        assert RPN.scores([RPN.record(found, truth)])["ar1000"] == pytest.approx(recall)


def test_boxes_end_where_the_image_does_before_its_padding():
    found = jax.jit(Detect(3, threshold=0.0).decode)(
        outputs(3, images=2, scale=2.0), jnp.array([[32, 32], [20, 12]])
    )
    every = np.asarray(found["boxes"])
    assert every.min() >= 0 and every[0].max() == 32
    assert every[1][:, [0, 2]].max() == 20 and every[1][:, [1, 3]].max() == 12


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"classes": 0}, "1 or more classes"),
        ({"classes": 1, "number": 0}, "got 1, 1000 and 0"),
        ({"classes": 1, "positive": 0.3}, "negative <= positive"),
    ],
)
def test_fields_that_make_no_detector(fields, message):
    with pytest.raises(InputError, match=message):
        Detect(**fields)


def test_a_detector_of_one_class_is_no_proposer():
    """It has a threshold and average precision, and other data sets do not fit."""
    one, any_object = Detect(1), Propose()
    assert one.best_by == "ap" and any_object.best_by == "ar1000"
    assert not one.fits(2) and any_object.fits(2)
    found = jax.jit(one.decode)(outputs(1, scale=2.0), jnp.array([[32, 32]]))
    scores = np.asarray(found["scores"])[np.asarray(found["valid"])]
    assert len(scores) and scores.min() >= one.threshold
    every = jax.jit(any_object.decode)(outputs(1, scale=2.0), jnp.array([[32, 32]]))
    assert np.asarray(every["scores"])[np.asarray(every["valid"])].min() < one.threshold


def test_classes_that_a_task_has_in_common_with_head_and_data():
    assert [task.logits for task in (RPN, Detect(3), SSD)] == [1, 3, 4]
    assert RPN.fits(7) and Detect(3).fits(3) and not SSD.fits(4)
