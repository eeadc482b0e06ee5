import itertools
from importlib.util import find_spec

import numpy as np
import pytest

from encdec import masks
from encdec.errors import InputError


def random_masks(count=12, size=(13, 17)):
    rng = np.random.default_rng(0)
    return rng.random((count, *size)) < rng.random((count, 1, 1))


def test_a_full_grid_covers_the_pixels_whose_centres_are_in_the_box():
    boxes = np.array([[2, 3, 10, 13], [-5, -5, 4, 30]], np.float32)
    pasted = masks.paste(np.ones((2, 28, 28), np.float32), boxes, (12, 20))
    expected = np.zeros((2, 12, 20), bool)
    expected[0, 2:10, 3:13] = True
    expected[1, :4] = True
    np.testing.assert_array_equal(pasted, expected)


def test_pasted_masks_are_bilinear_between_the_cells_centres():
    rng = np.random.default_rng(1)
    grid, box = rng.random((5, 5)), np.array([1.3, 2.6, 9.1, 17.7], np.float32)
    pasted = masks.paste(grid[None], box[None], (11, 20), threshold=0.4)[0]
    padded = np.pad(grid, 1)
    for y, x in itertools.product(range(11), range(20)):
        inside = box[0] <= y + 0.5 < box[2] and box[1] <= x + 0.5 < box[3]
        v, u = ((p + 0.5 - box[i]) / (box[i + 2] - box[i]) * 5 + 0.5 for i, p in ((0, y), (1, x)))
        value = 0.0
        if inside:
            (i, a), (j, b) = ((int(w), w - int(w)) for w in (v, u))
            top, bottom = padded[i, j : j + 2], padded[i + 1, j : j + 2]
            value = ((1 - a) * top + a * bottom) @ np.array([1 - b, b])
        assert pasted[y, x] == (value >= 0.4)


@pytest.mark.parametrize("box", [(3, 3, 3, 9), (50, 50, 60, 60), (-9, -9, -1, -1)])
def test_a_box_without_pixels_has_an_empty_mask(box):
    pasted = masks.paste(np.ones((1, 4, 4)), np.array([box], np.float32), (12, 20))
    assert pasted.shape == (1, 12, 20) and not pasted.any()


def test_masks_of_instances_are_where_their_ids_are():
    instances = np.array([[0, 1, 1], [3, 0, 1]], np.int32)
    got = masks.separate(instances, np.array([3, 0, 1, 2], np.int32))
    assert got.sum((1, 2)).tolist() == [1, 0, 3, 0] and got[0, 1, 0]


def test_intersections_are_counted_in_pieces(monkeypatch):
    a, b = random_masks(5), random_masks(7)
    expected = (a[:, None] & b[None]).sum((2, 3))
    np.testing.assert_array_equal(masks.intersection(a, b), expected)
    monkeypatch.setattr(masks, "PIECE", 10)
    np.testing.assert_array_equal(masks.intersection(a, b), expected)
    assert masks.intersection(a[:0], b).shape == (0, 7)


def test_run_lengths_go_down_the_columns_and_begin_outside():
    mask = np.array([[0, 1], [1, 1], [1, 0]], bool)
    assert masks.runs(mask) == [1, 4, 1]
    assert masks.runs(~mask) == [0, 1, 4, 1]
    assert masks.runs(np.zeros((2, 3), bool)) == [6] and masks.runs(np.ones((2, 3), bool)) == [0, 6]


@pytest.mark.parametrize("size", [(1, 1), (13, 17), (300, 400)])
def test_masks_survive_both_forms(size):
    for mask in random_masks(4, size):
        counts = masks.runs(mask)
        assert masks.expand(masks.compress(counts)) == counts
        np.testing.assert_array_equal(masks.unrun(counts, size), mask)


def test_texts_known_from_pycocotools():
    mask, empty = np.zeros((2, 40, 60), bool)
    mask[5:20, 10:30] = True
    known = {"e<?i0" + "0" * 37 + "[U1": mask, "P[2": empty, "0P[2": ~empty}
    assert {masks.compress(masks.runs(m)): text for text, m in known.items()} == {
        k: k for k in known
    }


@pytest.mark.skipif(not find_spec("pycocotools"), reason="pycocotools is not installed")
def test_texts_are_those_of_pycocotools():
    from pycocotools import mask as judge

    for size in [(1, 1), (13, 17), (300, 400)]:
        for mask in random_masks(6, size):
            text = judge.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            assert masks.compress(masks.runs(mask)) == text


@pytest.mark.parametrize(
    "counts, size", [([5], (2, 3)), ([7, -1], (2, 3)), ([], (1, 1)), ([6], (2, 4))]
)
def test_run_lengths_of_another_size_are_one_clear_line(counts, size):
    with pytest.raises(InputError, match="run lengths add up"):
        masks.unrun(counts, size)


@pytest.mark.parametrize("text", ["PQ é", "1!", "T"])
def test_a_broken_text_is_one_clear_line(text):
    with pytest.raises(InputError, match="compressed run lengths"):
        masks.expand(text)
