import dataclasses

import numpy as np
import pytest
import tyro

from encdec.data.biomedical import DSB2018, ISBI, ChaseDB1
from encdec.data.datasets import TFDS, CamVid, Folder, Shapes, VOCSegmentation
from encdec.data.detection import (
    BCCD,
    COCODetection,
    ShapesDetection,
    TFDSDetection,
    VOCDetection,
)
from encdec.data.pipeline import eval_batches
from encdec.errors import InputError

KNOWN = [  # found below $ENCDEC_DATA
    CamVid,
    VOCSegmentation,
    ISBI,
    DSB2018,
    ChaseDB1,
    BCCD,
    VOCDetection,
    COCODetection,
]


@pytest.mark.parametrize("kind", [Shapes, ShapesDetection, *KNOWN, Folder, TFDS, TFDSDetection])
def test_fields_are_flags(kind, tmp_path):
    options = {f.name for f in dataclasses.fields(kind)}
    assert {"split", "shrink"} <= options
    where = "--data-dir" if kind in (TFDS, TFDSDetection) else "--root"
    dataset = tyro.cli(kind, args=[where, str(tmp_path), "--split", "test", "--shrink", "3"])
    assert dataset.split == "test" and dataset.shrink == 3
    assert hash(dataset) == hash(dataclasses.replace(dataset)) and min(dataset.canvas) > 0


def test_shapes_keep_every_array(tmp_path):
    dataset = Shapes(tmp_path, size=32, train=3, val=2, test=1)
    assert dataset.canvas == (32, 32)
    assert [len(dataset.source(s)) for s in ("train", "val", "test")] == [3, 2, 1]
    batch = next(eval_batches(dataset, batch=2, keys=("label", "instances", "boxes")))
    assert batch["label"].max() < len(dataset.classes)
    assert batch["instances"].max() == batch["box_mask"].sum(1).max()


def test_default_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCDEC_CACHE", str(tmp_path / "cache"))
    assert len(Shapes(size=16, train=1, val=1, test=1).source("val")) == 1
    assert (tmp_path / "cache" / "shapes").is_dir()


@pytest.mark.parametrize("kind", [*KNOWN, Folder])
def test_no_folder_is_one_clear_line(kind, monkeypatch):
    monkeypatch.delenv("ENCDEC_DATA", raising=False)
    with pytest.raises(InputError, match="--data.root DIR") as caught:
        kind().source("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [*KNOWN, Folder])
@pytest.mark.parametrize("exists", [True, False])
def test_a_wrong_folder_is_described(tmp_path, kind, exists):
    root = tmp_path if exists else tmp_path / "gone"
    came = f"{root} holds nothing" if exists else f"{root} is no folder"
    with pytest.raises(InputError, match=f"wants .*; {came}; .*--data.root"):
        kind(root).source("train")


@pytest.mark.parametrize(
    "kind, folder",
    [
        (CamVid, "CamVid"),
        (VOCSegmentation, "VOC2012"),
        (ISBI, "isbi2012_em"),
        (DSB2018, "dsb2018_fluo"),
        (ChaseDB1, "CHASEDB1"),
        (BCCD, "BCCD"),
        (VOCDetection, "VOC2012"),
        (COCODetection, "coco"),
    ],
)
def test_known_sets_are_found_by_the_environment(kind, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ENCDEC_DATA", str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path / folder} is no folder"):
        kind().source("val")


def test_voc_with_sbd_is_divided_as_for_fcn(tmp_path, image_at, mask_at, ids):
    for name in "ab":
        image_at(tmp_path / "VOC" / "JPEGImages" / f"{name}.jpg")
        mask_at(tmp_path / "VOC" / "SegmentationClass" / f"{name}.png", ids)
    lists = tmp_path / "VOC" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (tmp_path / "SBD").mkdir()
    for path, names in (
        (lists / "train.txt", ""),
        (lists / "val.txt", "a\nb\n"),
        (lists / "trainval.txt", "a\nb\n"),
        (tmp_path / "SBD" / "train.txt", "b"),
    ):
        path.write_text(names)
    for path in ("img/b.jpg", "cls/b.mat"):
        (tmp_path / "SBD" / path).parent.mkdir()
        (tmp_path / "SBD" / path).touch()
    dataset = VOCSegmentation(tmp_path / "VOC")
    assert [len(dataset.source(s)) for s in ("train", "val", "trainval")] == [0, 2, 2]
    fcn = dataclasses.replace(dataset, sbd=tmp_path / "SBD")
    assert [len(fcn.source(s)) for s in ("train", "val", "trainval")] == [1, 1, 2]
    assert fcn.source("train").pairs[0].image == tmp_path / "SBD" / "img" / "b.jpg"
    assert fcn.source("val").pairs[0].image.stem == "a"


def test_classes_of_a_folder_are_the_ids_found(folder):
    root = folder(3)
    assert Folder(root).classes == ("class 0", "class 1", "class 2")
    assert Folder(root, names=("x", "y")).classes == ("x", "y")
    assert Folder(root, binary=True).classes == ("background", "foreground")


def test_black_and_white_masks_are_not_taken_for_ignore(tmp_path, image_at, mask_at):
    for name in "ab":
        image_at(tmp_path / "images" / f"{name}.png")
        mask_at(tmp_path / "masks" / f"{name}.png", np.tile(np.uint8([0, 255]), (12, 10)))
    with pytest.raises(InputError, match="black and white, say --data.binary"):
        _ = Folder(tmp_path).classes
    assert set(np.unique(Folder(tmp_path, binary=True).source("all")[0]["label"])) == {0, 1}


@pytest.mark.parametrize("options", [{"shrink": 0}, {"canvas": (0, 8)}])
def test_no_size_is_refused(options):
    with pytest.raises(InputError, match="1 or more"):
        CamVid(**options)
