import numpy as np
import pytest

from encdec import masks
from encdec.data.masks import filled, mask
from encdec.errors import InputError

RNG = np.random.default_rng(0)


def test_a_rectangle_covers_the_pixels_whose_centres_it_holds():
    corners = np.array([[1.0, 2.0], [4.5, 2.0], [4.5, 5.0], [1.0, 5.0]])
    want = np.zeros((8, 6), bool)
    want[2:5, 1:4] = True  # the centre at 4.5 is on the edge: the next one's
    np.testing.assert_array_equal(filled(corners, (8, 6)), want)
    np.testing.assert_array_equal(filled(corners[::-1], (8, 6)), want)


def test_polygons_that_share_an_edge_share_no_pixel():
    left = np.array([[0, 0], [7.3, 0], [3.1, 9], [0, 9]])
    right = np.array([[7.3, 0], [10, 0], [10, 9], [3.1, 9]])
    both = filled(left, (9, 10)).astype(int) + filled(right, (9, 10))
    assert (both == 1).all()


def test_a_polygon_equals_the_rule_for_each_pixel():
    for _ in range(5):
        corners = RNG.uniform(-3, 15, (7, 2))  # crosses itself and the border
        want = np.zeros((12, 11), bool)
        for y, x in np.ndindex(12, 11):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
                if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                    crossings += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
            want[y, x] = crossings % 2
        np.testing.assert_array_equal(filled(corners, (12, 11)), want)


@pytest.mark.parametrize("number", [1, 40, 200])
def test_more_turns_than_eight_bits_count(number):
    teeth = np.array([[x, y] for x in np.arange(number) for y in (0.0, 4.0)] + [[0.0, 4.0]])
    whole = filled(teeth, (4, 200))
    assert whole.any() == (number > 1) and not whole[:, number:].any()


def test_run_lengths_come_back():
    pixels = RNG.uniform(size=(37, 50)) < 0.5
    for counts in (masks.runs(pixels), masks.compress(masks.runs(pixels))):
        same = mask({"size": [37, 50], "counts": counts}, (37, 50), "here")
        np.testing.assert_array_equal(same, pixels)


def test_a_mask_of_parts_is_their_union():
    squares = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]]
    assert mask(squares, (8, 8), "here").sum() == 16 + 16 - 4
    assert not mask([], (8, 8), "here").any()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [[1.0, 2.0, 3.0]],
        [["a", "b"]],
        {"size": [8, 8]},
        {"size": [8, 8], "counts": [63]},
        {"size": [8, 9], "counts": [64]},
        {"size": [8, 8], "counts": [-1, 65]},
        {"size": [8, 8], "counts": ""},
        {"size": [8, 8], "counts": "zz"},
    ],
)
def test_what_is_no_mask_is_one_clear_line(wrong):
    with pytest.raises(InputError, match="file: polygons, or run lengths of 8x8") as caught:
        mask(wrong, (8, 8), "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e10])
def test_a_corner_that_is_far_or_no_number_is_refused(value):
    with pytest.raises(InputError, match="no number, or far away"):
        mask([[0, 0, value, 0, 4, 4]], (8, 6), "an object")
