import numpy as np
from PIL import Image

from encdec.data.check import check
from encdec.data.datasets import CamVid, Folder


def test_a_good_folder_has_no_faults(folder, capfd):
    assert check(Folder(folder(4)), ["train", "val"]) == []
    said = capfd.readouterr()
    assert said.out == said.err == ""  # the bar is for a terminal


def test_every_fault_is_named(folder, image_at, mask_at, ids):
    root = folder(8)
    (root / "images" / "scene00.png").write_bytes(b"\x89PNG cut")
    (root / "masks" / "scene01.png").write_bytes(b"")
    mask_at(root / "masks" / "scene02.png", ids[:-1])
    mask_at(root / "masks" / "scene03.png", np.full_like(ids, 9))
    Image.new("RGB", ids.shape[::-1]).save(root / "masks" / "scene04.png")
    image_at(root / "images" / "alone.png")
    mask_at(root / "masks" / "lost.png", ids)
    faults = check(Folder(root, names=("x", "y", "z")), ["train", "val"])
    wanted = {
        "images/scene00.png": "cannot be read",
        "masks/scene01.png": "cannot be read",
        "masks/scene02.png": "one size",
        "masks/scene03.png": "9 came",
        "masks/scene04.png": "mode RGB",
        "images/alone.png": "no alone.*",
        "masks/lost.png": "no lost.*",
    }
    assert len(faults) == len(wanted) and not any("\n" in line for line in faults)
    for path, reason in wanted.items():
        assert any(line.startswith(str(root / path)) and reason in line for line in faults)


def test_unreadable_masks_are_named_where_classes_are_found_in_masks(folder):
    root = folder(3)
    for i in (0, 2):
        (root / "masks" / f"scene0{i}.png").write_bytes(b"")
    faults = check(Folder(root), ["train", "val"])
    assert len(faults) == 2 and all("cannot be read" in line for line in faults)


def test_black_and_white_masks_that_are_not_said_to_be_are_a_fault(folder, mask_at, ids):
    root = folder(3)
    for path in (root / "masks").iterdir():
        mask_at(path, np.where(ids > 0, 255, 0).astype(np.uint8))
    (fault,) = check(Folder(root), ["train", "val"])
    assert (
        fault.startswith("train: ") and "only 0 and 255" in fault and "say --data.binary" in fault
    )
    assert check(Folder(root, binary=True), ["train", "val"]) == []


def test_a_split_is_checked_without_the_others(folder):
    root = folder(3)
    (root / "test").mkdir()
    for kind in ("images", "masks"):
        (root / kind).rename(root / "test" / kind)
    assert check(Folder(root), ["test"]) == []


def test_a_missing_split_is_a_fault(tmp_path):
    faults = check(CamVid(tmp_path), ["train", "test"])
    assert [line.split(":")[0] for line in faults] == ["train", "test"]
