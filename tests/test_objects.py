import numpy as np
import pytest
from scipy import ndimage

from encdec import objects
from encdec.errors import InputError

RNG = np.random.default_rng(0)
LEVELS = [(10 + i) / 20 for i in range(10)]


def ids(size=(24, 26), number=30, names=60):
    """Random rectangles over one another, with gaps in their numbering."""
    result = np.zeros(size, np.int32)
    for name in RNG.permutation(names)[:number] + 1:
        y, x = RNG.integers(0, size[0] - 3), RNG.integers(0, size[1] - 3)
        result[y : y + RNG.integers(2, 7), x : x + RNG.integers(2, 7)] = name
    return result


def moved(truth):
    """The same objects under other names, each shifted or eaten into, some lost."""
    result = np.zeros_like(truth)
    for name in np.unique(truth[truth > 0]):
        mask = truth == name
        if RNG.random() < 0.7:
            mask = np.roll(mask, RNG.integers(-1, 2), axis=RNG.integers(2))
        if RNG.random() < 0.9:
            result[mask] = 100 - name
    return result


def disc(size, centre, radius):
    y, x = np.indices(size)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def slow_match(found, truth):
    """Every pair of objects, mask by mask."""
    counts, overlaps = np.zeros((10, 3), int), np.zeros(2)
    guesses = [found == i for i in np.unique(found) if i]
    cells = [truth == i for i in np.unique(truth) if i]
    for row, level in enumerate(LEVELS):
        pairs = [
            (g, c)
            for g in range(len(guesses))
            for c in range(len(cells))
            if (guesses[g] & cells[c]).sum() > level * (guesses[g] | cells[c]).sum() + 1e-9
        ]
        assert len({g for g, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
        counts[row] = len(pairs), len(guesses) - len(pairs), len(cells) - len(pairs)
    for g in guesses:
        for c in cells:
            both, either = (g & c).sum(), (g | c).sum()
            overlaps += [(both > either / 2) * both / either, (both > c.sum() / 2) * both / either]
    return counts, overlaps


@pytest.mark.parametrize("trial", range(4))
def test_matching_equals_every_pair_compared(trial):
    truth = ids()
    found = moved(truth)
    counts, overlaps = objects.match(found, truth)
    slow_counts, slow_overlaps = slow_match(found, truth)
    assert 0 < slow_counts[-1, 0] < slow_counts[0, 0]  # the trial tells thresholds apart
    np.testing.assert_array_equal(counts, slow_counts)
    np.testing.assert_allclose(overlaps, slow_overlaps)


def test_an_iou_of_exactly_the_threshold_is_no_match():
    truth = np.repeat(np.int32([[0, 1]]), 20, axis=1)
    for k, level in enumerate(LEVELS):
        found = truth.copy()
        found[0, 20 : 40 - round(20 * level)] = 0  # leaves exactly that share of the object
        counts, _ = objects.match(found, truth)
        assert (counts[:, 0] == [i < k for i in range(10)]).all()


def test_the_challenge_counts_a_cell_more_than_half_covered():
    truth, found = np.zeros((1, 20), np.int32), np.zeros((1, 20), np.int32)
    truth[0, :8] = 1  # 5 of 8 lie in an object of 15: IoU 5 / 18, no match
    truth[0, 18:] = 2  # missed
    found[0, 3:18] = 4
    counts, overlaps = objects.match(found, truth)
    np.testing.assert_array_equal(counts, [[0, 1, 2]] * 10)
    np.testing.assert_allclose(overlaps, [0, 5 / 18])
    sums = {"counts": counts, "counts_unsplit": counts, "overlaps": overlaps}
    assert objects.scores(sums)["seg"] == pytest.approx(5 / 36)


def test_scores_of_a_set_by_hand():
    counts = np.array([[6, 2, 4]] * 5 + [[3, 5, 7]] * 5)
    unsplit = np.array([[4, 0, 6]] * 10)
    sums = {"counts": counts, "counts_unsplit": unsplit, "overlaps": np.array([4.5, 5.0])}
    want = {"object_f1": 12 / 18, "object_f1_unsplit": 8 / 14, "object_ap": (0.5 + 0.2) / 2}
    want |= {"object_iou": 4.5 / 6, "seg": 5 / 10}
    want |= {f"ap/{level:.2f}": 0.5 if level < 0.75 else 0.2 for level in LEVELS}
    assert objects.scores(sums) == pytest.approx(want)


def test_without_any_object_there_is_no_score():
    empty = np.zeros((9, 9), np.int32)
    example = {"label": empty.astype(np.uint8), "instances": empty}
    sums = objects.measure(empty.astype(np.float32), example)
    assert not any(array.any() for array in sums.values())
    assert np.isnan(list(objects.scores(sums).values())).all()


def test_components_join_sides_not_corners():
    mask = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 1]], bool)
    np.testing.assert_array_equal(objects.components(mask), [[1, 1, 0], [0, 0, 2], [0, 0, 2]])


@pytest.mark.parametrize("turn", range(4))
def test_two_touching_discs_are_cut_at_the_neck(turn):
    size = (40, 56)
    left, right = disc(size, (18, 18), 11), disc(size, (21, 37), 10)
    found = objects.split(np.rot90(left | right, turn))
    assert objects.components(np.rot90(left | right, turn)).max() == 1
    assert found.max() == 2
    truth = np.rot90(np.where(left, 1, np.where(right, 2, 0)).astype(np.int32), turn)
    counts, _ = objects.match(found, truth)
    np.testing.assert_array_equal(counts[8], [2, 0, 0])  # IoU above 0.9


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 12])
def test_one_disc_stays_one(radius):
    mask = disc((30, 31), (14, 15), radius)
    np.testing.assert_array_equal(objects.split(mask), mask)


def climb(mask):
    """`split`, one pixel at a time: the peak of the object that each pixel is in."""
    parts = ndimage.label(mask)[0]
    wide = ndimage.distance_transform_edt(np.pad(mask, 20))  # far from where it ends
    height = ndimage.gaussian_filter(wide, objects.SMOOTH)[20:-20, 20:-20]

    def around(place):
        y, x = (range(max(0, p - 1), min(p + 2, n)) for p, n in zip(place, mask.shape, strict=True))
        return [(i, j) for i in y for j in x if parts[i, j] == parts[place]]

    def peak(at):
        while (up := max(around(at), key=lambda place: height[place])) != at:
            at = up
        return at

    peaks = {place: peak(place) for place in map(tuple, np.argwhere(mask).tolist())}
    passes = [
        (min(height[one], height[other]), one, other) for one in peaks for other in around(one)
    ]
    for saddle, one, other in sorted(passes, reverse=True):  # the highest first
        low, high = sorted((peaks[one], peaks[other]), key=lambda place: height[place])
        if low != high and saddle >= objects.NECK * height[low]:
            peaks = {place: high if top == low else top for place, top in peaks.items()}
    return peaks


@pytest.mark.parametrize("width", [1.5, 3.0])
def test_split_equals_a_climb_pixel_by_pixel(width):
    mask = ndimage.gaussian_filter(RNG.normal(size=(40, 44)), width) > 0
    peaks, found = climb(mask), objects.split(mask)
    pairs = {(int(found[place]), peak) for place, peak in peaks.items()}
    assert len(pairs) == found.max() == len(set(peaks.values()))


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_split_loses_no_pixel_and_joins_no_components(width):
    mask = ndimage.gaussian_filter(RNG.normal(size=(60, 64)), width) > 0
    found, parts = objects.split(mask), objects.components(mask)
    np.testing.assert_array_equal(found > 0, mask)
    np.testing.assert_array_equal(np.unique(found[mask]), np.arange(1, found.max() + 1))
    homes = {(int(i), int(p)) for i, p in zip(found[mask], parts[mask], strict=True)}
    assert len(homes) == found.max() > parts.max()


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_neck_is_cut_at_every_size(size):
    drawn = disc((20, 40), (9, 9), 8) | disc((20, 40), (9, 21), 6)  # the saddle is 0.7 of the lower
    waist = disc((20, 40), (9, 9), 8) | disc((20, 40), (9, 13), 8)  # and here nearly as high
    grown = [np.kron(mask, np.ones((size, size))) > 0 for mask in (drawn, waist)]
    assert [int(objects.split(mask).max()) for mask in grown] == [2, 1]


def test_a_small_hole_of_one_object_is_filled():
    whole, hole = disc((30, 31), (14, 15), 9), disc((30, 31), (14, 17), 3)
    np.testing.assert_array_equal(objects.filled(whole & ~hole), whole)
    large = disc((30, 31), (14, 15), 5)
    assert large.sum() > objects.HOLE
    np.testing.assert_array_equal(objects.filled(whole & ~large), whole & ~large)


def test_what_several_objects_enclose_is_no_hole():
    corners = np.kron([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.ones((5, 5))) > 0
    island = disc((30, 31), (14, 15), 9) & ~disc((30, 31), (14, 15), 4)
    island[14, 15] = True
    edge = np.ones((9, 9), bool)
    edge[3:6, :2] = False  # open to the outside
    for mask in (corners, island, edge, np.zeros((5, 5), bool), np.ones((5, 5), bool)):
        np.testing.assert_array_equal(objects.filled(mask), mask)


def test_split_is_not_fooled_by_plateaus():
    stripes = np.zeros((20, 40), np.float32)
    stripes[4:8, 3:37] = stripes[12:15, 3:37] = 1  # ridges of equal height
    found = objects.split(stripes > 0)
    assert found.max() == 2 and (found[stripes > 0] > 0).all()


def test_ignored_pixels_are_background():
    truth = np.zeros((20, 40), np.int32)
    truth[3:12, 3:12], truth[5:15, 25:35] = 1, 2
    label = (truth > 0).astype(np.uint8)
    label[:, 20:] = 255
    wrong = np.where(label == 255, 0.9, np.where(truth == 1, 0.8, 0.2))
    sums = objects.measure(wrong, {"label": label, "instances": truth})
    np.testing.assert_array_equal(sums["counts"], [[1, 0, 0]] * 10)
    np.testing.assert_array_equal(sums["overlaps"], [1, 1])


def test_ignored_pixels_inside_an_object_stay_background():
    truth = np.zeros((30, 30), np.int32)
    truth[5:25, 5:25] = 1
    label = (truth > 0).astype(np.uint8)
    label[11:18, 11:18] = 255
    sums = objects.measure((truth > 0).astype(float), {"label": label, "instances": truth})
    np.testing.assert_array_equal(sums["counts_unsplit"], [[1, 0, 0]] * 10)
    assert sums["overlaps"][0] == sums["counts"][0, 0]  # pixel by pixel


def test_unsplit_counts_are_of_plain_components():
    size = (40, 56)
    left, right = disc(size, (18, 18), 11), disc(size, (21, 37), 10)
    truth = np.where(left, 1, np.where(right, 2, 0)).astype(np.int32)
    example = {"label": (truth > 0).astype(np.uint8), "instances": truth}
    scores = objects.scores(objects.measure((truth > 0).astype(np.float32), example))
    assert scores["object_f1"] == 1  # two of two
    assert scores["object_f1_unsplit"] == pytest.approx(2 / 3)  # one, IoU with the left above 0.5


def test_data_without_instances_are_refused_in_one_line():
    with pytest.raises(InputError, match="has none") as error:
        objects.measure(np.zeros((4, 4)), {"label": np.zeros((4, 4), np.uint8)})
    assert "\n" not in str(error.value)


def test_specks_are_no_objects():
    ids = np.zeros((20, 20), np.int32)
    ids[1:5, 1:5], ids[1:4, 8:13], ids[10, 10] = 1, 2, 3  # 16, 15 and 1 pixels
    assert set(np.unique(objects.large(ids))) == {0, 1}
    np.testing.assert_array_equal(objects.large(ids) == 1, ids == 1)
    sums = objects.measure(
        (ids > 0).astype(float), {"label": (ids > 0).astype(np.uint8), "instances": ids}
    )
    assert (sums["counts"] == [1, 0, 2]).all() and (sums["counts_unsplit"] == [1, 0, 2]).all()
