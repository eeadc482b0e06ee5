import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import boxes as B

RNG = np.random.default_rng(0)
NMS = jax.jit(B.nms, static_argnums=3)
ENCODE, DECODE = (jax.jit(f, static_argnums=2) for f in (B.encode, B.decode))
AREA, INTERSECTION, IOU, OVERLAP, GIOU = map(
    jax.jit, (B.area, B.intersection, B.iou, B.overlap, B.giou)
)


def random_boxes(*shape: int, size: float = 100.0, least: float = 2.0) -> np.ndarray:
    """Boxes of `least` to half the size, inside it."""
    sides = RNG.uniform(least, size / 2, (*shape, 2))
    corner = RNG.uniform(0, 1, (*shape, 2)) * (size - sides)
    return np.concatenate([corner, corner + sides], -1).astype(np.float32)


def pixels(box: np.ndarray, size: int = 12) -> np.ndarray:
    """The pixels of a box with whole corners."""
    mask = np.zeros((size, size), bool)
    y0, x0, y1, x1 = box.astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


def test_iou_overlap_and_giou_count_pixels():
    a, b = (np.sort(RNG.integers(0, 13, (7, 2, 2)), 1).reshape(7, 4) for _ in range(2))
    a[0], b[0], b[1] = [2, 3, 2, 9], [0, 0, 12, 12], b[2]  # the first has no rows
    fa, fb = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    area, shared, iou, overlap = AREA(fa), *(f(fa, fb) for f in (INTERSECTION, IOU, OVERLAP))
    giou = GIOU(fa, fb)
    for i, first in enumerate(map(pixels, a)):
        np.testing.assert_allclose(area[i], first.sum())
        for j, second in enumerate(map(pixels, b)):
            both, either = (first & second).sum(), (first | second).sum()
            np.testing.assert_allclose(shared[i, j], both)
            np.testing.assert_allclose(iou[i, j], both / max(either, 1), rtol=1e-6)
            np.testing.assert_allclose(overlap[i, j], both / max(first.sum(), 1), rtol=1e-6)
        hull = np.r_[np.minimum(a[i], b[i])[:2], np.maximum(a[i], b[i])[2:]]
        hull, either = pixels(hull).sum(), (first | pixels(b[i])).sum()
        wanted = iou[i, i] - (hull - either) / max(hull, 1)
        np.testing.assert_allclose(giou[i], wanted, rtol=1e-5)


def test_measures_take_leading_axes():
    a, b = jnp.asarray(random_boxes(2, 3)), jnp.asarray(random_boxes(2, 5))
    assert IOU(a, b).shape == (2, 3, 5) and GIOU(a, a).shape == (2, 3)
    np.testing.assert_allclose(IOU(a, b)[1], IOU(a[1], b[1]), rtol=1e-6)


def test_boxes_apart_still_pull_by_giou():
    near, far = jnp.array([[0, 0, 4, 4.0]]), jnp.array([[0, 20, 4, 24.0]])
    pull = jax.jit(jax.value_and_grad(lambda a, b: B.giou(a, b).sum()))
    no_pull = jax.jit(jax.grad(lambda a, b: B.iou(a, b).sum()))
    assert pull(far, near)[1][0, 1] < 0 and not no_pull(far, near).any()
    value, grad = pull(0 * far, 0 * far)
    assert value == 0 and np.isfinite(grad).all()


def test_clipping_keeps_what_is_inside_the_image():
    boxes = jnp.array([[[-3, 2, 5, 99], [40, 40, 50, 50.0]]])
    clipped = B.clip(boxes, jnp.array([[20, 30]]))
    np.testing.assert_array_equal(clipped, [[[0, 2, 5, 30], [20, 30, 20, 30]]])


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_undoes_encoding(weights):
    boxes, anchors = jnp.asarray(random_boxes(2, 50)), random_boxes(2, 50)
    deltas = ENCODE(boxes, anchors, weights)
    np.testing.assert_allclose(DECODE(deltas, anchors, weights), boxes, atol=1e-4)
    np.testing.assert_allclose(DECODE(0 * deltas, anchors, weights), anchors, atol=1e-5)


def test_deltas_are_shifts_and_logarithms_in_the_papers_order():
    anchor, box = jnp.array([[10, 20, 14, 28.0]]), jnp.array([[11, 20, 19, 36.0]])
    deltas = ENCODE(box, anchor)  # 4 pixels right of 8, 3 down of 4, twice as wide and high
    np.testing.assert_allclose(deltas, [[0.5, 0.75, np.log(2), np.log(2)]], rtol=1e-6)


@pytest.mark.paper(
    "torchvision box coder",
    says="dw and dh are cut at log(1000 / 16), 4.135",
    does="a box is at most 62.5 times its anchor",
    differs="",
)
def test_a_box_is_at_most_62_5_times_its_anchor():
    anchor = jnp.array([[0, 0, 2, 4.0]])
    high, wide = np.diff(DECODE(jnp.array([[0, 0, 99, 4.2]]), anchor).reshape(2, 2), axis=0)[0]
    np.testing.assert_allclose([high, wide], [125, 250], rtol=1e-5)
    np.testing.assert_allclose(B.LARGEST, 4.135, atol=2e-4)


def test_deltas_of_boxes_without_size_are_finite():
    nothing = jnp.zeros((1, 4))
    for boxes, anchors in ((nothing, nothing), (nothing, nothing + jnp.arange(4.0)[None])):
        assert np.isfinite(ENCODE(boxes, anchors)).all()


def greedy(boxes, scores, valid, threshold, groups):
    """The best first; each takes away what it covers."""
    left = [i for i in np.argsort(-scores, kind="stable") if valid[i]]
    kept = np.zeros(len(boxes), bool)
    ious = np.asarray(IOU(jnp.asarray(boxes), jnp.asarray(boxes)))
    while left:
        best, *left = left
        kept[best] = True
        left = [i for i in left if ious[best, i] <= threshold or groups[i] != groups[best]]
    return kept


@pytest.mark.parametrize("n, threshold", [(1, 0.5), (60, 0.0), (60, 0.3), (60, 0.5), (60, 0.7)])
def test_suppression_is_the_greedy_one(n, threshold):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        boxes = np.repeat(random_boxes(-(-n // 3), size=40), 3, 0)[:n]
        boxes += rng.normal(0, 1.5, boxes.shape).astype(np.float32)
        scores = rng.integers(0, 12, n).astype(np.float32)  # many are equal
        valid, groups = rng.uniform(size=n) < 0.8, rng.integers(0, 1 + seed % 3, n)
        kept = NMS(*map(jnp.asarray, (boxes, scores, valid)), threshold, jnp.asarray(groups))
        np.testing.assert_array_equal(kept, greedy(boxes, scores, valid, threshold, groups))


def test_suppression_follows_a_chain_to_its_end():
    """Box i covers i + 1 alone: every other one is kept, after as many rounds as there are."""
    at = np.arange(40.0)[:, None] * 4
    boxes = jnp.asarray(np.concatenate([at, at * 0, at + 8, at * 0 + 8], -1), jnp.float32)
    kept = NMS(boxes, -jnp.arange(40.0), jnp.ones(40, bool), 0.3)
    np.testing.assert_array_equal(kept, np.arange(40) % 2 == 0)


def test_nothing_valid_is_nothing_kept():
    boxes, scores = jnp.asarray(random_boxes(5)), jnp.ones(5)
    assert not NMS(boxes, scores, jnp.zeros(5, bool), 0.5).any()


def test_the_best_come_first_and_what_is_missing_is_marked():
    scores = jnp.array([[1, 3, 2, 3.0], [0, 0, 0, 0]])
    valid = jnp.array([[True, True, True, True], [False, True, False, False]])
    index, found = B.top(scores, valid, 3)
    np.testing.assert_array_equal(index[0], [1, 3, 2])
    assert index[1, 0] == 1 and found.tolist() == [[True] * 3, [True, False, False]]
    index, found = B.top(scores, valid, 6)  # more than there are
    assert found.sum(1).tolist() == [4, 1]
    assert B.take(scores, index).shape == (2, 6)


LIMITS = ("threshold", "overlap", "candidates", "number")
DETECT = jax.jit(B.detections, static_argnames=(*LIMITS, "smallest", "levels"))


@pytest.mark.parametrize("kinds", [1, 3])
def test_detections_are_those_of_a_loop_over_classes(kinds):
    b, n, k, number = 2, 30, 3, 8
    boxes = random_boxes(b, n, kinds, size=40)
    probs = RNG.uniform(size=(b, n, k)).astype(np.float32)
    valid = RNG.uniform(size=(b, n)) < 0.8
    limits = dict(threshold=0.3, overlap=0.4, candidates=n * k, number=number)
    found = DETECT(jnp.asarray(boxes), jnp.asarray(probs), jnp.asarray(valid), **limits)
    assert {name: part.shape[:2] for name, part in found.items()} == dict.fromkeys(
        ("boxes", "scores", "classes", "valid"), (b, number)
    )
    for i in range(b):
        wanted = []
        for c in range(k):
            box = boxes[i, :, c % kinds]
            ok = valid[i] & (probs[i, :, c] > 0.3)
            kept = greedy(box, probs[i, :, c], ok, 0.4, np.zeros(n))
            wanted += [(probs[i, j, c], c, *box[j]) for j in np.flatnonzero(kept)]
        wanted = np.array(sorted(wanted, reverse=True)[:number])
        got = np.c_[found["scores"][i], found["classes"][i], found["boxes"][i]]
        np.testing.assert_array_equal(got[found["valid"][i]], wanted)


def test_every_level_or_class_has_its_candidates():
    """Each of three levels, then each of three classes, hands in its best box."""
    boxes = jnp.arange(6.0)[None, :, None] * 20 + jnp.array([0, 0, 9, 9.0])[None, None]
    probs = jnp.array([[[9, 8, 1], [7, 2, 1], [6, 5, 4], [3, 3, 1], [2, 1, 0], [0, 1, 1]]]) / 10
    valid, limits = jnp.ones((1, 6), bool), dict(threshold=0.05, overlap=0.5, candidates=1)
    found = DETECT(boxes[:, :, None], probs, valid, number=3, levels=(2, 2, 2), **limits)
    np.testing.assert_allclose(found["scores"], [[0.9, 0.6, 0.2]])
    by_class = jax.jit(B.detections_by_class, static_argnames=LIMITS)
    found = by_class(boxes, probs, number=4, **limits)
    np.testing.assert_allclose(found["scores"][0, :3], [0.9, 0.8, 0.4])
    assert found["classes"][0, :3].tolist() == [0, 1, 2]
    assert found["boxes"][0, :3, 0].tolist() == [0, 0, 40] and found["valid"].sum() == 3


def test_few_detections_are_padded_and_small_ones_left_out():
    boxes = jnp.array([[[[0, 0, 9, 9.0]], [[20, 20, 20, 29]], [[30, 30, 39, 39]]]])
    probs, valid = jnp.array([[[0.9], [0.8], [0.04]]]), jnp.ones((1, 3), bool)
    limits = dict(threshold=0.05, overlap=0.5, candidates=100, number=5)
    found = DETECT(boxes, probs, valid, **limits)
    assert found["valid"].tolist() == [[True, True, False, False, False]]
    found = DETECT(boxes, probs, valid, smallest=0.01, **limits)
    assert found["valid"].sum() == 1 and found["boxes"][0, 0].tolist() == [0, 0, 9, 9]
    assert not DETECT(boxes, probs, jnp.zeros((1, 3), bool), **limits)["valid"].any()


def test_proposals_are_those_of_a_loop_over_levels():
    lengths, candidates, number = (40, 12, 3), 20, 15
    boxes = [random_boxes(2, n, size=40) for n in lengths]
    scores = [RNG.normal(size=(2, n)).astype(np.float32) for n in lengths]
    found = jax.jit(
        lambda *levels: B.proposals(*levels, overlap=0.3, candidates=candidates, number=number)
    )([jnp.asarray(x) for x in boxes], [jnp.asarray(x) for x in scores])
    for i in range(2):
        wanted = []
        for level, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            best = np.argsort(-score[i])[:candidates]
            box, score = box[i][best], score[i][best]
            kept = greedy(box, score, np.ones(len(best), bool), 0.3, np.zeros(len(best)))
            wanted += [(score[j], level, *box[j]) for j in np.flatnonzero(kept)]
        wanted = np.array(sorted(wanted, reverse=True)[:number])
        got = np.c_[found["scores"][i], found["classes"][i], found["boxes"][i]]
        got = got[found["valid"][i]]
        np.testing.assert_array_equal(got, wanted)
