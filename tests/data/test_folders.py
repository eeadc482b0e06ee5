import numpy as np
import pytest
from scipy.io import savemat

from encdec.data import folders
from encdec.errors import InputError


@pytest.mark.parametrize("listed", [True, False])
def test_camvid_layout(tmp_path, ids, image_at, mask_at, listed):
    ids[0, 0] = 11
    for name in "ab":
        image_at(tmp_path / "val" / f"{name}.png", ord(name))
        mask_at(tmp_path / "valannot" / f"{name}.png", ids)
    if listed:
        line = "/SegNet/CamVid/val/b.png /SegNet/CamVid/valannot/b.png\n"
        (tmp_path / "val.txt").write_text(line)
    source = folders.camvid(tmp_path, "val")
    assert len(source) == (1 if listed else 2)
    example = source[len(source) - 1]
    assert example["image"][0, 0, 0] == ord("b")
    assert example["label"][0, 0] == 255 and 11 not in example["label"]


def test_voc_layout(tmp_path, ids, image_at, mask_at):
    for name in "ab":
        image_at(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask_at(tmp_path / "SegmentationClass" / f"{name}.png", ids, palette=True)
    mask_at(tmp_path / "SegmentationObject" / "b.png", ids, palette=True)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    plain, objects = folders.voc(tmp_path, "train")
    np.testing.assert_array_equal(plain["label"], ids)
    assert "instances" not in plain
    np.testing.assert_array_equal(objects["instances"], np.where(ids == 255, 0, ids))
    with pytest.raises(InputError, match="there are the splits train"):
        folders.voc(tmp_path, "val")


def test_listed_files_that_are_missing_are_unpaired(tmp_path, image_at, mask_at, ids):
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    image_at(tmp_path / "JPEGImages" / "a.jpg")
    source = folders.voc(tmp_path, "val")
    assert len(source) == 0
    assert source.unpaired[0].endswith("a.png: listed, but there is no such file")


@pytest.mark.parametrize("name", ["9" * 300, "zero\0"])
def test_a_name_that_no_file_can_have_is_unpaired(name, tmp_path, image_at, mask_at, ids):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"a\n{name}\n")
    image_at(tmp_path / "JPEGImages" / "a.jpg")
    mask_at(tmp_path / "SegmentationClass" / "a.png", ids, palette=True)
    source = folders.voc(tmp_path, "train")
    assert len(source) == 1 and len(source.unpaired) == 2


@pytest.fixture
def sbd(tmp_path, ids, image_at):
    """SBD with the training images a and b, and c for validation."""
    (tmp_path / "cls").mkdir()
    for name in "abc":
        image_at(tmp_path / "img" / f"{name}.jpg", ord(name))
        boundaries = np.empty(20, object)  # as in the release: cells of what is not used
        boundaries[:] = [np.zeros(ids.shape, np.uint8)] * 20
        classes = {"Boundaries": boundaries, "Segmentation": ids, "CategoriesPresent": [1.0, 2.0]}
        savemat(tmp_path / "cls" / f"{name}.mat", {"GTcls": classes}, do_compression=True)
    (tmp_path / "train.txt").write_text("b\na\n")
    (tmp_path / "val.txt").write_text("c\n")
    return tmp_path


def test_sbd_trains_on_its_list_with_matlab_masks(sbd, ids):
    source = folders.sbd(sbd)
    assert [pair.image.name for pair in source.pairs] == ["a.jpg", "b.jpg"]
    assert source[1]["image"][0, 0, 0] == ord("b") and source[1]["label"].dtype == np.uint8
    np.testing.assert_array_equal(source[1]["label"], ids)
    (sbd / "cls" / "a.mat").unlink()
    assert folders.sbd(sbd).unpaired == (
        f"{sbd / 'cls' / 'a.mat'}: listed, but there is no such file",
    )


@pytest.mark.paper(
    "FCN release",
    says="validation on the images of VOC 2011 val that are not in SBD's train",
    does="that list from the two folders",
    differs="",
)
def test_seg11valid_is_voc_val_without_what_sbd_trains_on(sbd, ids, image_at, mask_at):
    voc = sbd / "VOC2011"
    for name in "bcd":
        image_at(voc / "JPEGImages" / f"{name}.jpg")
        mask_at(voc / "SegmentationClass" / f"{name}.png", ids)
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("d\nb\nc\nlost\n")
    source = folders.seg11valid(voc, sbd)
    assert [pair.image.stem for pair in source.pairs] == ["d", "c"]
    assert len(source.unpaired) == 2 and all("lost" in line for line in source.unpaired)
    with pytest.raises(InputError, match=f"SBD wants .*train.txt.*{voc} holds .*--data.sbd DIR"):
        folders.seg11valid(voc, voc)


@pytest.mark.parametrize("keep", [0, 100, 160, 0.9, "other"])
def test_a_damaged_matlab_mask_is_named(sbd, keep):
    path = sbd / "cls" / "a.mat"
    data = path.read_bytes()
    if keep == "other":
        savemat(path, {"GTinst": {"Segmentation": 1}})
    else:
        path.write_bytes(data[: keep if keep != 0.9 else int(0.9 * len(data))])
    with pytest.raises(InputError, match="a.mat: a MATLAB file with GTcls.Segmentation") as caught:
        _ = folders.sbd(sbd)[0]
    assert "\n" not in str(caught.value)


def test_split_folders(tmp_path, ids, image_at, mask_at):
    image_at(tmp_path / "train" / "images" / "a.jpg")
    mask_at(tmp_path / "train" / "masks" / "a.png", ids)
    assert len(folders.pairs(tmp_path, "train", val=0.2, binary=False)) == 1
    with pytest.raises(InputError, match=r"wants val/images/ and val/masks/.* holds train/"):
        folders.pairs(tmp_path, "val", val=0.2, binary=False)


def test_flat_folder_is_divided_by_name(folder):
    root = folder(10)
    read = {s: folders.pairs(root, s, val=0.3, binary=False) for s in ("train", "val", "all")}
    assert [len(read[s]) for s in ("train", "val", "all")] == [7, 3, 10]
    assert set(read["train"].pairs) | set(read["val"].pairs) == set(read["all"].pairs)
    assert read["val"] == folders.pairs(root, "val", val=0.3, binary=False)


def test_files_without_partner_are_named(folder, image_at, mask_at, ids):
    root = folder(3)
    image_at(root / "images" / "alone.png")
    mask_at(root / "masks" / "lost.png", ids)
    image_at(root / "images" / "scene00.bmp")
    (root / "images" / "notes.txt").write_text("not an image")
    source = folders.pairs(root, "all", val=0.2, binary=False)
    assert len(source) == 3
    for name in ("alone.png: no alone.*", "lost.png: no lost.*", "same name but for the suffix"):
        assert sum(name in line for line in source.unpaired) == 1


def test_binary_masks(tmp_path, image_at, mask_at, ids):
    image_at(tmp_path / "images" / "a.png")
    mask_at(tmp_path / "masks" / "a.png", ids)
    label = folders.pairs(tmp_path, "all", val=0.2, binary=True)[0]["label"]
    np.testing.assert_array_equal(label, ids > 0)


def test_camvid_has_its_published_frames(real):
    train, val = folders.camvid(real / "CamVid", "train"), folders.camvid(real / "CamVid", "val")
    assert (len(train), len(val)) == (367, 51) and not train.unpaired and not val.unpaired
    example = train[0]
    assert example["image"].shape == (360, 480, 3)
    assert set(np.unique(example["label"])) <= {*range(11), 255}


def test_voc_has_real_palette_masks(real):
    source = folders.voc(real / "voc_mini" / "VOC2012", "trainval")
    assert [len(np.unique(e["label"])) for e in source] == [3, 3, 4, 4, 4, 5, 3]
    assert ["instances" in e for e in source] == [False] * 4 + [True] * 3
