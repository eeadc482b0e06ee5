from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encdec.data import biomedical
from encdec.data.biomedical import DSB2018, ISBI, ChaseDB1
from encdec.data.check import check
from encdec.data.pipeline import eval_batches
from encdec.errors import InputError

CELLS = np.uint8(  # the two cells of column 4 on touch at a corner only
    [
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [1, 1, 1, 0, 0, 0, 1, 1],
    ]
)
NUCLEI = np.uint16(  # 300 and 7 touch along an edge, 7 and 255 at a corner
    [
        [300, 300, 7, 7, 0, 0],
        [300, 300, 7, 7, 0, 0],
        [300, 300, 0, 0, 255, 255],
        [0, 0, 0, 0, 255, 255],
    ]
)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_stack(path, pages):
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, compression="tiff_adobe_deflate")


@pytest.fixture
def em(tmp_path):
    """Five slices whose slice i has the grey value 10 i."""
    save_stack(tmp_path / "train-volume.tif", [np.full((4, 8), 10 * i, np.uint8) for i in range(5)])
    save_stack(tmp_path / "train-labels.tif", [255 * CELLS] * 5)
    return tmp_path


def test_slices_of_a_stack_are_divided_in_a_block(em):
    read = {s: ISBI(em, validate=(1, 3)).source(s) for s in ("train", "val", "all")}
    greys = {s: [int(e["image"][0, 0, 0]) // 10 for e in source] for s, source in read.items()}
    assert greys == {"train": [0, 3, 4], "val": [1, 2], "all": [0, 1, 2, 3, 4]}
    assert [read["val"].name(i) for i in range(2)] == [
        f"{em / 'train-labels.tif'} page {page}" for page in (1, 2)
    ]


def test_membrane_is_0_and_each_4_connected_cell_an_instance(em):
    example = ISBI(em, validate=(0, 1)).source("val")[0]
    assert example["image"].shape == (4, 8, 3) and example["image"].dtype == np.uint8
    np.testing.assert_array_equal(example["label"], CELLS)
    assert example["label"].dtype == np.uint8 and example["instances"].dtype == np.int32
    corners = [example["instances"][at] for at in ((0, 0), (0, 4), (2, 6), (3, 0))]
    assert sorted(corners) == [1, 2, 3, 4] and (example["instances"][CELLS == 0] == 0).all()


def test_a_page_is_decoded_once_and_never_shared(em):
    source = ISBI(em).source("all")
    for path in em.iterdir():
        source[1]["image"][:] = 99
        path.unlink()
    assert source[1]["image"].max() == 10
    with pytest.raises(InputError, match="train-volume.tif page 0: .* no such file"):
        _ = source[0]


def test_stacks_of_different_length_are_a_fault_once(em):
    save_stack(em / "train-labels.tif", [255 * CELLS] * 3)
    faults = check(ISBI(em, validate=(0, 4)), ["train", "val"])
    assert len(faults) == 2 and faults[1] == "train: has no images"
    wanted = f"{em / 'train-labels.tif'}: as many pages as {em / 'train-volume.tif'} are wanted, 5"
    assert faults[0] == f"{wanted}; it has 3"


@pytest.mark.parametrize("block", [(3, 3), (-1, 2), (4, 6)])
def test_a_validation_block_outside_the_stack_is_refused(em, block):
    with pytest.raises(InputError, match="0 <= first < last <= 5, .*--data.validate"):
        ISBI(em, validate=block).source("train")
    assert len(ISBI(em, validate=block).source("all")) == 5


@pytest.mark.parametrize("name", ["train-volume.tif", "train-labels.tif"])
def test_a_missing_stack_is_named(em, name):
    (em / name).unlink()
    with pytest.raises(InputError, match=f"wants train-volume.tif and train-labels.tif .*{em} h"):
        ISBI(em, validate=(1, 3)).source("val")


@pytest.mark.parametrize("keep", [0, 6, 0.5, 0.9])
def test_a_truncated_stack_is_named(em, keep):
    path = em / "train-volume.tif"
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep in (0, 6) else int(keep * len(data))])
    faults = check(ISBI(em, validate=(0, 2)), ["all"])
    assert faults and not any("\n" in line for line in faults)
    assert all("train-volume.tif" in line and "cannot be read" in line for line in faults)


def test_a_page_of_other_values_or_size_is_named(em):
    odd = 255 * CELLS
    odd[1, 1] = 128
    save_stack(em / "train-labels.tif", [255 * CELLS, odd, 255 * CELLS[:-1], 0 * CELLS])
    save_stack(em / "train-volume.tif", [CELLS] * 4)
    faults = check(ISBI(em), ["all"])
    assert len(faults) == 2
    assert "train-labels.tif page 1: 0 (membrane) and 255 (cell) are wanted; 128 came" in faults[0]
    assert "train-labels.tif page 2: image and" in faults[1] and "of one size" in faults[1]


@pytest.mark.parametrize("kind", [ISBI, ChaseDB1])
def test_a_split_that_is_not_there_is_refused(kind, em, eyes):
    with pytest.raises(InputError, match="train, val, all; 'test' came; change --data.split"):
        kind(em if kind is ISBI else eyes).source("test")


def test_nuclei_keep_their_16_bit_ids_and_touching_ones_are_cut(tmp_path):
    save(tmp_path / "val" / "images" / "a.png", np.zeros((4, 6, 4), np.uint8))
    save(tmp_path / "val" / "masks" / "a.png", NUCLEI)
    example = DSB2018(tmp_path).source("val")[0]
    assert example["image"].shape == (4, 6, 3)
    np.testing.assert_array_equal(example["instances"], NUCLEI)
    assert example["instances"].dtype == np.int32 and example["label"].dtype == np.uint8
    cut = np.uint8([[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(example["label"], cut)
    whole = DSB2018(tmp_path, cut=False).source("val")[0]["label"]
    np.testing.assert_array_equal(whole, NUCLEI > 0)


def test_separation_is_every_pixel_beside_another_instance():
    ids = np.random.default_rng(0).integers(0, 4, (9, 11)).astype(np.int32)
    wide = np.pad(ids, 1)
    for y, x in np.ndindex(*ids.shape):
        beside = {wide[y, x + 1], wide[y + 2, x + 1], wide[y + 1, x], wide[y + 1, x + 2]}
        other = ids[y, x] > 0 and bool(beside - {0, ids[y, x]})
        assert biomedical.separation(ids)[y, x] == other


@pytest.fixture
def kaggle(tmp_path):
    """Ten images with eight masks: a covers rows 0 and 1, the others rows 1 and 2."""
    for i in range(10):
        root = tmp_path / f"image{i}"
        save(root / "images" / f"image{i}.png", np.full((3, 4, 4), i, np.uint8))
        for name in "abcdefgh":
            mask = np.zeros((3, 4), np.uint8)
            mask[slice(0, 2) if name == "a" else slice(1, 3)] = 255
            save(root / "masks" / f"{name}.png", mask)
    return tmp_path


def test_the_first_of_overlapping_nuclei_gets_the_pixel(kaggle, monkeypatch):
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *args: sorted(glob(*args), reverse=True))
    example = DSB2018(kaggle, cut=False).source("all")[7]
    assert (example["image"] == 7).all() and example["image"].shape == (3, 4, 3)
    np.testing.assert_array_equal(example["instances"], np.repeat([[1], [1], [2]], 4, 1))
    np.testing.assert_array_equal(example["label"], np.ones((3, 4)))


def test_kaggle_images_are_divided_by_name(kaggle):
    read = {s: DSB2018(kaggle, share=0.3).source(s) for s in ("train", "val", "all")}
    assert [len(read[s]) for s in ("train", "val", "all")] == [7, 3, 10]
    assert set(read["train"].pairs) | set(read["val"].pairs) == set(read["all"].pairs)
    assert read["val"] == DSB2018(kaggle, share=0.3).source("val")
    with pytest.raises(InputError, match="train, val, all; 'test' came"):
        DSB2018(kaggle).source("test")


def test_every_fault_of_a_kaggle_folder_is_named(kaggle):
    (kaggle / "image1" / "images" / "image1.png").unlink()
    for path in (kaggle / "image2" / "masks").iterdir():
        path.unlink()
    save(kaggle / "image3" / "masks" / "a.png", np.zeros((3, 5), np.uint8))
    (kaggle / "image4" / "masks" / "b.png").write_bytes(b"")
    (kaggle / ".hidden").mkdir()
    faults = check(DSB2018(kaggle), ["train", "val"])
    wanted = {
        "image1/images/image1.png": "no such file",
        "image2/images/image2.png": "no *.png in",
        "image3/masks/a.png": "3x4 pixels; 3x5 came",
        "image4/masks/b.png": "cannot be read",
    }
    assert len(faults) == len(wanted) and not any("\n" in line for line in faults)
    for path, reason in wanted.items():
        assert any(line.startswith(str(kaggle / path)) and reason in line for line in faults)


def test_files_without_partner_are_named(tmp_path):
    for name in ("images/a.png", "images/b.png", "masks/a.png"):
        save(tmp_path / "train" / name, NUCLEI.astype(np.uint8))
    source = DSB2018(tmp_path).source("train")
    assert len(source) == 1 and source.unpaired[0].endswith(f"no b.* in {tmp_path}/train/masks")
    with pytest.raises(InputError, match=r"wants val/images/ and val/masks/.* holds train/"):
        DSB2018(tmp_path).source("val")


@pytest.fixture
def eyes(tmp_path):
    """Both eyes of the children 1, 9 and 10; the first observer drew row 1, the second column 1.

    The first's masks have one bit a pixel, the second's 0 and 255.
    """
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), np.uint8)
    first[1], second[:, 1] = True, 255
    for child in (1, 9, 10):
        for side in "LR":
            stem = f"Image_{child:02}{side}"
            save(tmp_path / f"{stem}.jpg", np.full((4, 4, 3), child, np.uint8))
            save(tmp_path / f"{stem}_1stHO.png", first)
            save(tmp_path / f"{stem}_2ndHO.png", second)
    return tmp_path


def test_eyes_are_divided_by_child(eyes):
    def stems(split, **options):
        return [p.image.stem for p in ChaseDB1(eyes, **options).source(split).pairs]

    assert stems("train") == ["Image_01L", "Image_01R"]
    assert stems("val") == ["Image_09L", "Image_09R", "Image_10L", "Image_10R"]
    assert stems("val", validate=(1,)) == ["Image_01L", "Image_01R"]
    assert len(stems("all")) == 6


@pytest.mark.parametrize("observer", [1, 2])
def test_vessels_are_those_of_the_observer(eyes, observer):
    label = ChaseDB1(eyes, observer=observer).source("train")[0]["label"]
    wanted = np.zeros((4, 4), np.uint8)
    wanted[(1, slice(None)) if observer == 1 else (slice(None), 1)] = 1
    np.testing.assert_array_equal(label, wanted)


def test_eyes_without_partner_are_named(eyes):
    (eyes / "Image_01L.jpg").unlink()
    (eyes / "Image_09R_1stHO.png").unlink()
    (eyes / "Image_10R_2ndHO.png").unlink()
    faults = check(ChaseDB1(eyes), ["train", "val"])
    assert faults == [
        f"{eyes / 'Image_09R.jpg'}: no Image_09R_1stHO.png beside it",
        f"{eyes / 'Image_01L_1stHO.png'}: no Image_01L.jpg beside it",
    ]


def test_isbi_has_its_24_slices(real):
    train, val = (ISBI(real / "isbi2012_em").source(s) for s in ("train", "val"))
    assert (len(train), len(val)) == (20, 4) and not train.unpaired
    labels = np.stack([e["label"] for source in (train, val) for e in source])
    assert labels.shape == (24, 512, 512) and round(100 * float((labels == 0).mean()), 1) == 22.5
    batch = next(eval_batches(ISBI(real / "isbi2012_em"), batch=2, keys=("label", "instances")))
    assert batch["image"].shape == (2, 512, 512, 3) and batch["instances"].max() > 50


def test_dsb_has_its_nuclei_and_kaggle_the_same_ones(real):
    root = real / "dsb2018_fluo"
    counts = {}
    for split in ("train", "val"):
        source = DSB2018(root).source(split)
        nuclei = sum(len(np.unique(e["instances"])) - 1 for e in source)
        counts[split] = (len(source), nuclei, len(source.unpaired))
    assert counts == {"train": (154, 5196, 0), "val": (36, 1328, 0)}
    published = DSB2018(root / "kaggle_layout" / "stage1_train").source("all")
    assert len(published) == 3
    ours = DSB2018(root).source("train")
    numbers = {pair.image.stem: i for i, pair in enumerate(ours.pairs)}
    for pair, theirs in zip(published.pairs, published, strict=True):
        same = ours[numbers[pair.image.stem[:16]]]
        np.testing.assert_array_equal(theirs["image"], same["image"])
        np.testing.assert_array_equal(theirs["label"], same["label"])
        pairs = np.unique(np.stack([theirs["instances"], same["instances"]]).reshape(2, -1), axis=1)
        assert pairs.shape[1] == theirs["instances"].max() + 1


def test_chase_has_its_twenty_eyes(real):
    train, val = (ChaseDB1(real / "CHASEDB1").source(s) for s in ("train", "val"))
    assert (len(train), len(val)) == (16, 4) and not train.unpaired
    assert val[0]["image"].shape == (960, 999, 3)
    labels = np.stack([e["label"] for source in (train, val) for e in source])
    assert labels.max() == 1 and round(100 * float(labels.mean()), 1) == 7.2
