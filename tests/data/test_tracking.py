import numpy as np
import pytest
from PIL import Image

from encdec.data.border import Border
from encdec.data.check import check
from encdec.data.pipeline import train_batches
from encdec.data.tracking import CellTracking
from encdec.errors import InputError

SIZE = (12, 20)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def sequences(tmp_path):
    """Two sequences of three frames, of which 0 and 2 are drawn: cells 300 and 7 touch.

    In frame 2 of each, cell 9 is marked and not drawn.
    """
    cells = np.zeros(SIZE, np.uint16)
    cells[2:5, 2:5], cells[2:5, 5:8] = 300, 7
    for sequence in ("01", "02"):
        for time in range(3):
            grey = np.full(SIZE, 10 * time + int(sequence), np.uint8)
            save(tmp_path / sequence / f"t00{time}.tif", grey)
            marks = np.zeros(SIZE, np.uint16)
            marks[3, 3], marks[3, 6] = 1, 2
            if time == 2:
                marks[8, 15] = 9
            save(tmp_path / f"{sequence}_GT" / "TRA" / f"man_track00{time}.tif", marks)
            if time != 1:
                save(tmp_path / f"{sequence}_GT" / "SEG" / f"man_seg00{time}.tif", cells)
    return tmp_path


def data(root, **changes):
    return CellTracking(root, **{"reach": 2, "margin": 0, "canvas": SIZE} | changes)


def test_only_drawn_frames_are_examples_and_sequences_are_divided(sequences):
    greys = {
        split: [int(e["image"][0, 0, 0]) for e in data(sequences).source(split)]
        for split in ("train", "val", "all")
    }
    assert greys == {"train": [1, 21], "val": [2, 22], "all": [1, 21, 2, 22]}
    name = data(sequences).source("val").name(1)
    assert name == str(sequences / "02_GT" / "SEG" / "man_seg002.tif")


def test_cells_keep_their_ids_and_touching_ones_are_cut(sequences):
    example = data(sequences).source("train")[0]
    assert sorted(np.unique(example["instances"])) == [0, 7, 300]
    assert example["label"].dtype == np.uint8 and example["image"].shape == (*SIZE, 3)
    assert example["label"][3].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, *[0] * 12]
    whole = data(sequences, cut=False).source("train")[0]["label"]
    assert whole[3].tolist() == [0, 0, *[1] * 6, *[0] * 12]


def test_around_a_cell_that_is_marked_and_not_drawn_nothing_counts(sequences):
    full, part = (data(sequences).source("train")[i]["label"] for i in (0, 1))
    assert 255 not in full
    y, x = np.indices(SIZE)
    disc = (y - 8) ** 2 + (x - 15) ** 2 <= 4
    np.testing.assert_array_equal(part == 255, disc)
    np.testing.assert_array_equal(part[~disc], full[~disc])


def test_a_drawn_cell_counts_wherever_it_is(sequences):
    """Beside a mark that is not drawn, and in the border outside the field of interest."""
    label = data(sequences, reach=30, margin=4).source("train")[1]["label"]
    cut = (label == 0).sum()
    assert (label == 1).sum() == 12 and cut == 6 and (label == 255).sum() == label.size - 18
    outer = data(sequences, margin=4).source("train")[0]["label"]
    assert (outer[4:8, 4:16] != 255).all() and (outer[8:] == 255).all()


def test_without_marks_all_cells_are_taken_as_drawn(sequences):
    for folder in sequences.glob("*_GT/TRA"):
        folder.rename(folder.with_name("kept"))
    assert 255 not in data(sequences).source("train")[1]["label"]


def test_a_batch_with_the_weight_map(sequences):
    one = data(sequences, border=Border(), max_boxes=1)
    batch = next(train_batches(one, batch=2, seed=0))
    assert batch["weight"].shape == (2, *SIZE)
    assert ((batch["weight"] == 0) == (batch["label"] == 255)).all()
    assert check(data(sequences), ["train", "val"]) == []


def test_files_without_partner_are_named(sequences):
    (sequences / "01" / "t000.tif").unlink()
    (sequences / "01_GT" / "TRA" / "man_track002.tif").unlink()
    seg = sequences / "01_GT" / "SEG"
    save(seg / "man_seg_000_003.tif", np.zeros(SIZE, np.uint16))
    faults = check(data(sequences), ["train"])
    assert faults[:3] == [
        f"{seg / 'man_seg000.tif'}: no 01/t000.tif for it",
        f"{seg / 'man_seg002.tif'}: no 01_GT/TRA/man_track002.tif for it",
        f"{seg / 'man_seg_000_003.tif'}: a frame of two dimensions is wanted, man_seg000.tif",
    ]
    with pytest.raises(InputError, match=r"man_seg000.tif: no 01/t000.tif .*2 more"):
        next(train_batches(data(sequences), batch=1, seed=0))


@pytest.mark.parametrize(
    "file, pixels, message",
    [
        ("01/t000.tif", np.zeros(SIZE, np.uint16), "t000.tif: an image of 8 bits"),
        ("01/t000.tif", np.zeros((12, 19), np.uint8), "image has 12x19 pixels, the label 12x20"),
        ("01_GT/SEG/man_seg000.tif", np.zeros((*SIZE, 3), np.uint8), "a mask of one channel"),
        ("01_GT/TRA/man_track000.tif", np.zeros((11, 20), np.uint16), "12x20 pixels; 11x20 came"),
    ],
)
def test_a_file_that_does_not_fit_is_named(sequences, file, pixels, message):
    save(sequences / file, pixels)
    (fault,) = check(data(sequences), ["train"])
    assert message in fault and file.split("/")[0] in fault


def test_a_file_that_cannot_be_read_is_named(sequences):
    (sequences / "01_GT" / "TRA" / "man_track000.tif").write_bytes(b"no image")
    (fault,) = check(data(sequences), ["train"])
    assert "man_track000.tif: cannot be read as an image" in fault


def test_wrong_folders_splits_and_sequences_are_refused(sequences, tmp_path):
    with pytest.raises(InputError, match="wants 01/t000.tif, 01_GT/SEG/man_seg000.tif .*no folder"):
        data(tmp_path / "none").source("train")
    with pytest.raises(InputError, match="train, val, all; 'test' came; change --data.split"):
        data(sequences).source("test")
    with pytest.raises(InputError, match="are 01, 02; 03 came; change --data.validate"):
        data(sequences, validate=("03",)).source("val")
    with pytest.raises(InputError, match="0 or more pixels; -1 and 0 came"):
        data(sequences, reach=-1)


def test_the_folder_is_found_by_the_sets_name(sequences, monkeypatch):
    monkeypatch.setenv("ENCDEC_DATA", str(sequences.parent))
    assert len(CellTracking(name=sequences.name).source("all")) == 4
