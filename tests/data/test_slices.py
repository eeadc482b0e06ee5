import numpy as np
import pytest

from encdec.data.check import check
from encdec.data.slices import THICKNESS, Slices, Volume
from encdec.errors import InputError
from encdec.objects import components

SMALL = Slices(size=64, slices=6, validate=(4, 6))


def test_a_slice_follows_from_seed_and_number():
    for name, array in SMALL.source("val")[1].items():
        np.testing.assert_array_equal(array, SMALL.source("all")[5][name])
    other = Slices(size=64, slices=6, validate=(4, 6), seed=1)
    assert (SMALL.source("all")[0]["label"] != other.source("all")[0]["label"]).any()


def test_arrays_have_the_form_of_an_example():
    example = SMALL.source("train")[0]
    form = {name: (array.shape, array.dtype.name) for name, array in example.items()}
    assert form == {
        "image": ((64, 64, 3), "uint8"),
        "label": ((64, 64), "uint8"),
        "instances": ((64, 64), "int32"),
    }
    assert np.ptp(example["image"], axis=-1).max() == 0, "grey"
    assert set(np.unique(example["label"])) == {0, 1}


def test_instances_are_the_parts_that_membranes_keep_apart():
    example = SMALL.source("train")[0]
    np.testing.assert_array_equal(example["instances"], components(example["label"] == 1))
    assert example["instances"].max() >= 4


def test_membranes_are_darker_than_cells_but_no_threshold_parts_them():
    slices = SMALL.source("all")
    grey, label = (
        np.concatenate([slices[i][name].ravel() for i in range(6)]) for name in ("image", "label")
    )
    grey = grey[::3].astype(int)
    assert grey[label == 0].mean() < grey[label == 1].mean() - 20
    best = max(((grey > at) == label).mean() for at in range(0, 256, 8))
    assert best < 0.95


def test_a_cell_goes_on_in_the_next_slice():
    volume = Volume(0, 64, 6)
    cells = [volume._nearest(volume._bent(THICKNESS * z))[0] for z in range(6)]
    same = [
        np.mean([(a == b).mean() for a, b in zip(cells[:-k], cells[k:], strict=True)])
        for k in (1, 4)
    ]
    assert same[0] > 0.5 and same[1] < 0.2


def test_splits_are_one_block_and_the_rest():
    assert [len(SMALL.source(split)) for split in ("train", "val", "all")] == [4, 2, 6]
    assert [SMALL.source("val").name(i) for i in (0, 1)] == [
        "drawn slice 4 of seed 0",
        "drawn slice 5 of seed 0",
    ]
    assert check(SMALL, ["train", "val"]) == []


def test_what_comes_is_ones_own():
    source = SMALL.source("val")
    source[0]["image"][:] = 0
    assert source[0]["image"].max() > 0


@pytest.mark.parametrize(
    "wrong, split, said",
    [
        ({"size": 16}, "train", "a size of 32 or more"),
        ({"validate": (20, 25)}, "train", "first < last <= 24"),
        ({"validate": (3, 3)}, "val", "first < last"),
        ({}, "test", "train, val, all; 'test' came"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(wrong, split, said):
    with pytest.raises(InputError, match=said):
        Slices(**wrong).source(split)
