import numpy as np
import pytest
from scipy import ndimage

from encdec import membranes
from encdec.objects import components

RNG = np.random.default_rng(0)


def blobs(size=(40, 44), width=2.0):
    """A smooth random map in [0, 1]."""
    x = ndimage.gaussian_filter(RNG.normal(size=size), width)
    return ((x - x.min()) / np.ptp(x)).astype(np.float32)


def label(size=(40, 44)):
    """Cells of a few dozen pixels, membranes between them, a corner ignored."""
    y, x = np.indices(size)
    cells = ((y % 13 > 1) & ((x + y // 3) % 11 > 1)).astype(np.uint8)
    cells[:6, :9] = 255
    return cells


def partitions(cells=4, segments=6, number=300, low=1):
    """Two random partitions of so many pixels; segments from `low` (0: of no segment)."""
    return RNG.integers(low, segments, number), RNG.integers(1, cells, number)


def both(segments, cells):
    sizes = membranes.sizes(np.asarray(segments), np.asarray(cells))
    return membranes.v_rand(*sizes), membranes.v_info(*sizes)


def total(slices):
    return {name: np.sum([s[name] for s in slices], axis=0) for name in slices[0]}


@pytest.mark.paper(
    "U-Net §4",
    says="Rand error of the EM challenge",
    does="V_rand 2/3, split 3/5, merge 3/4 of the contingency (4, 0), (2, 2)",
    differs="warping error is not computed",
)
def test_worked_example_of_the_sheet():
    rand, _ = both([1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 2, 2])
    np.testing.assert_allclose(rand, (2 / 3, 0.6, 0.75))


@pytest.mark.parametrize("low", [0, 1])
def test_scores_equal_a_count_of_all_pairs_of_pixels(low):
    segments, cells = partitions(low=low)
    own = np.where(segments == 0, 100 + np.arange(len(segments)), segments)
    same_segment, same_cell = own[:, None] == own[None], cells[:, None] == cells[None]
    pairs = (same_segment & same_cell).sum(), same_segment.sum(), same_cell.sum()
    rand = 2 * pairs[0] / (pairs[1] + pairs[2]), pairs[0] / pairs[2], pairs[0] / pairs[1]
    # -log of the share of pixels with which a pixel is together, averaged, is the entropy.
    joint, s, t = (
        -np.log(m.mean(1)).mean() for m in (same_segment & same_cell, same_segment, same_cell)
    )
    shared = s + t - joint
    info = 2 * shared / (s + t), shared / s, shared / t
    got = both(segments, cells)
    np.testing.assert_allclose(got[0], rand, rtol=1e-12)
    np.testing.assert_allclose(got[1], info, rtol=1e-12)


def test_scores_equal_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    entropy = pytest.importorskip("skimage.measure").shannon_entropy
    segments, cells = partitions()
    joint, s, t = (n @ n - n.sum() for n in membranes.sizes(segments, cells))  # as it counts pairs
    # What it returns as precision divides by the pairs of the truth, whatever its docstring says.
    error, split, merge = skimage.adapted_rand_error(cells, segments)
    np.testing.assert_allclose(
        (2 * joint / (s + t), joint / t, joint / s), (1 - error, split, merge)
    )
    split, merge = skimage.variation_of_information(cells, segments)  # H(S | T), H(T | S)
    info = both(segments, cells)[1]
    np.testing.assert_allclose(info[1], 1 - split / entropy(segments))
    np.testing.assert_allclose(info[2], 1 - merge / entropy(cells))


def test_the_same_partition_under_other_names_scores_one():
    cells = RNG.integers(1, 9, 500)
    for score in both((10 - cells) * 3, cells):
        np.testing.assert_allclose(score, 1, rtol=1e-12)
    for score in both(np.full(5, 7), np.ones(5, int)):  # one segment, one cell: no entropy
        np.testing.assert_array_equal(score, 1)


def test_a_split_lowers_the_split_part_only_and_a_merger_the_merge_part_only():
    cells = np.repeat([1, 2, 3], [30, 50, 20])
    cut = np.where((cells == 2) & (np.arange(100) % 3 == 0), 9, cells)
    joined = np.where(cells == 3, 2, cells)
    for (_, split, merge), (_, cut_split, cut_merge) in zip(
        both(joined, cells), both(cut, cells), strict=True
    ):
        assert split == pytest.approx(1) and cut_merge == pytest.approx(1)
        assert merge < 0.9 and cut_split < 0.9


def flood(segments):
    """`thinned`, one pixel at a time: all that touch a segment, even row + column first, again."""
    ids, (h, w) = segments.copy(), segments.shape
    free = {(int(y), int(x)) for y, x in np.argwhere(segments == 0)}

    def around(y, x):
        near = [(y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)]
        return {int(ids[p]) for p in near if 0 <= p[0] < h and 0 <= p[1] < w} - {0}

    while front := sorted((p for p in free if around(*p)), key=lambda p: sum(p) % 2):
        for p in front:
            touched = around(*p)
            ids[p] = touched.pop() if len(touched) == 1 else 0
        free -= set(front)
    return ids


@pytest.mark.paper(
    "U-Net ISBI 2012",
    says="segmentations are scored after their borders are thinned to a pixel",
    does="a flood of the membrane from all segments at once",
    differs="ties between equally far segments go by place",
)
@pytest.mark.parametrize("level", [0.4, 0.55, 0.7, 0.85, 1.0])
def test_thinning_equals_a_flood_pixel_by_pixel(level):
    for _ in range(20):
        segments = components(blobs() > level)
        np.testing.assert_array_equal(membranes.thinned(segments), flood(segments))


@pytest.mark.parametrize(
    "row, thin",
    [
        ([1, 0, 2], [1, 0, 2]),
        ([1, 0, 0, 2], [1, 0, 2, 2]),
        ([1, 0, 0, 0, 2], [1, 1, 0, 2, 2]),
        ([0, 0, 3, 0], [3, 3, 3, 3]),
        ([0, 0], [0, 0]),
    ],
)
def test_thinning_leaves_one_pixel_between_segments(row, thin):
    got = membranes.thinned(np.asarray([row], np.int32))
    np.testing.assert_array_equal(got, [thin])


def test_a_thick_membrane_costs_the_old_error_only():
    truth = label()
    thick = ndimage.minimum_filter(np.where(truth == 1, 0.9, 0.2).astype(np.float32), 3)
    scores = membranes.scores(membranes.measure(thick, {"label": truth}))
    assert scores["v_rand"] > 0.97 and scores["v_info"] > 0.97
    assert scores["rand_error"] > 0.15 and scores["pixel_error"] > 0.15


def test_the_truth_itself_is_perfect():
    truth = label()
    scores = membranes.scores(membranes.measure((truth == 1) * 1.0, {"label": truth}))
    errors = {name for name in scores if name.endswith("error")}
    parts = {name for name in scores if not name.endswith("threshold")} - errors
    assert {scores[name] for name in errors} == {0.0}
    assert [scores[name] for name in parts] == pytest.approx([1] * 6)


def test_old_errors_equal_a_count_over_the_set():
    slices = [(blobs(), label()) for _ in range(2)]
    got = membranes.scores(total([membranes.measure(p, {"label": t}) for p, t in slices]))
    rand, pixel = [], []
    for threshold in membranes.THRESHOLDS:
        pairs, tp, wrong = np.zeros(3), 0, 0
        for p, t in slices:
            inside, found = t == 1, p > threshold
            s, c = ndimage.label(found)[0][inside], ndimage.label(inside)[0][inside]
            s = np.where(s == 0, 10000 + np.arange(len(s)), s)
            same = s[:, None] == s[None], c[:, None] == c[None]
            pairs += (same[0] & same[1]).sum(), same[0].sum(), same[1].sum()
            tp += (found & inside).sum()
            wrong += (found != inside)[t != 255].sum()
        rand.append(2 * pairs[0] / (pairs[1] + pairs[2]))
        pixel.append(2 * tp / (2 * tp + wrong))
    assert got["rand_error"] == pytest.approx(1 - max(rand))
    assert got["pixel_error"] == pytest.approx(1 - max(pixel))


def test_the_threshold_is_one_for_the_set_and_slices_count_alike():
    truth, wide = label(), label((40, 88))
    low, high = np.where(truth == 1, 0.35, 0.25), np.where(wide == 1, 0.85, 0.65)
    sums = [membranes.measure(p, {"label": t}) for p, t in ((low, truth), (high, wide))]
    alone = [membranes.scores(s) for s in sums]
    assert [s["v_rand"] for s in alone] == pytest.approx([1, 1])
    assert [s["v_rand_threshold"] for s in alone] == [0.3, 0.7]
    means = (sums[0]["rand"] + sums[1]["rand"]) / 2
    scores = membranes.scores(total(sums))
    assert scores["v_rand"] == means[:, 0].max() < 0.9
    parts = [scores["v_rand_split"], scores["v_rand_merge"]]
    assert parts == means[means[:, 0].argmax(), 1:].tolist()


def test_ignored_pixels_change_nothing():
    truth, p = label(), blobs()
    want = membranes.measure(p, {"label": truth})
    for value in (0, 1):  # 1 would join the segments around the corner
        other = np.where(truth == 255, np.float32(value), p)
        got = membranes.measure(other, {"label": truth})
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)
    nothing = membranes.measure(p, {"label": np.full_like(truth, 255)})
    assert nothing.keys() == want.keys() and not any(array.any() for array in nothing.values())


def test_a_slice_of_membrane_counts_in_the_pixel_error_only():
    truth = label()
    perfect = membranes.measure((truth == 1).astype(np.float32), {"label": truth})
    empty = membranes.measure(np.full(truth.shape, 0.95), {"label": np.zeros_like(truth)})
    assert empty["slices"] == 0 and not empty["rand"].any() and not empty["pairs"].any()
    scores = membranes.scores(total([perfect, empty]))
    assert scores["v_rand"] == pytest.approx(1) and scores["pixel_error"] > 0.3
    assert np.isnan(list(membranes.scores(empty).values())).all()
