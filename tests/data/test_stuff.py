import numpy as np
import pytest

from encdec.data.check import check
from encdec.data.stuff import STUFF, COCOStuff
from encdec.errors import InputError


@pytest.fixture
def coco(tmp_path, image_at, mask_at):
    ids = np.tile(np.arange(20, dtype=np.uint8) * 3, (12, 1))
    ids[0] = 255
    for split in ("train", "val"):
        image_at(tmp_path / f"{split}2017" / "000000000009.jpg")
        mask_at(tmp_path / f"panoptic_stuff_{split}2017" / "000000000009.png", np.minimum(ids, 53))
    return tmp_path


def test_masks_of_stuff_lie_beside_the_images(coco):
    source = COCOStuff(coco).source("train")
    assert len(source) == 1 and source[0]["label"].max() == 53
    assert len(STUFF) == 54 and (STUFF[0], STUFF[1], STUFF[53]) == (
        "things",
        "banner",
        "rug-merged",
    )
    assert check(COCOStuff(coco), ["train", "val"]) == []


def test_faults_are_named(coco, mask_at, image_at):
    mask_at(coco / "panoptic_stuff_val2017" / "000000000009.png", np.full((12, 20), 54, np.uint8))
    image_at(coco / "val2017" / "000000000025.jpg")
    lone, wrong = check(COCOStuff(coco), ["val"])
    assert "000000000025.jpg: no 000000000025.*" in lone
    assert "class ids below 54 (or 255, ignore) are wanted; 54 came" in wrong


def test_a_folder_without_masks_is_refused(coco):
    with pytest.raises(
        InputError, match="wants test2017/ and panoptic_stuff_test2017/ in its fold"
    ):
        COCOStuff(coco).source("test")
