"""Examples that cannot be used: named, and stopped at or skipped."""

import dataclasses
import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encdec.data.biomedical import DSB2018
from encdec.data.datasets import Folder
from encdec.data.faults import Faults
from encdec.data.pipeline import eval_batches, opened, train_batches
from encdec.errors import InputError


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def bomb(path: Path) -> None:
    """A PNG that says 30,000 by 30,000 pixels."""
    head = b"IHDR" + struct.pack(">2I5B", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + path.read_bytes()[33:])


def turned(path: Path) -> None:
    """As a telephone held upright writes it; the mask was drawn on what a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def empty(path: Path) -> None:
    """A BMP of no rows."""
    Image.new("RGB", (20, 12)).save(path, "BMP")
    data = bytearray(path.read_bytes())
    data[22:26] = bytes(4)
    path.write_bytes(data)


def sized(path: Path) -> None:
    Image.new("L", (20, 11)).save(path)


MATRIX = {
    "half a PNG": ("images/scene02.png", halved, "cannot be read as an image"),
    "a flipped byte": ("masks/scene02.png", flipped, "cannot be read as an image"),
    "text": ("images/scene02.png", lambda p: p.write_text("no image"), "cannot be read"),
    "nothing": ("masks/scene02.png", lambda p: p.write_bytes(b""), "cannot be read"),
    "a bomb": ("images/scene02.png", bomb, "30000x30000|exceeds limit|could be decompression"),
    "no pixels": ("images/scene02.png", empty, "pixels is wanted|cannot be read"),
    "turned by a tag": ("images/scene02.png", turned, "one size .* save the image turned"),
    "another size": ("masks/scene02.png", sized, "one size"),
    "colours": (
        "masks/scene02.png",
        lambda p: Image.new("RGB", (20, 12)).save(p),
        "one channel .* RGB",
    ),
    "16 bits": (
        "images/scene02.png",
        lambda p: Image.fromarray(np.ones((12, 20), np.uint16)).save(p),
        "8 bits a channel",
    ),
    "an unknown id": (
        "masks/scene02.png",
        lambda p: Image.new("L", (20, 12), 7).save(p),
        "ids below 3 .* 7 came",
    ),
    "losses": (
        "masks/scene02.png",
        lambda p: Image.new("L", (20, 12), 1).save(p, "JPEG"),
        "without losses",
    ),
    "no mask": ("masks/scene02.png", Path.unlink, "no scene02"),
}


@pytest.fixture
def pairs(folder: Callable) -> Callable[[int], Path]:
    """Writes n pairs of the split "train"; returns its folder."""

    def make(n: int) -> Path:
        root = folder(n)
        for kind in ("images", "masks"):
            (root / "train").mkdir(exist_ok=True)
            (root / kind).rename(root / "train" / kind)
        return root / "train"

    return make


def set_of(root: Path, **fields: object) -> Folder:
    names, canvas = ("a", "b", "c"), (12, 20)
    return Folder(root.parent, names=names, split="train", canvas=canvas, **fields)


@pytest.mark.parametrize("kind", MATRIX)
def test_a_bad_file_is_named_and_stopped_at_or_skipped(pairs, kind):
    root = pairs(6)
    name, damage, reason = MATRIX[kind]
    damage(root / name)
    for read in (train, evaluated):
        with pytest.raises(InputError, match=reason) as caught:
            read(set_of(root))
        assert name.split("/")[1].split(".")[0] in str(caught.value)
        assert "\n" not in str(caught.value)
        skipping = set_of(root, faults="skip")
        faults = Faults(skipping)
        values = read(skipping, faults)
        assert 2 not in values and len(faults.lines) == 1
        assert values if read is train else values == {0, 1, 3, 4, 5}


def train(dataset: Folder, faults: Faults | None = None) -> set[int]:
    batches = train_batches(dataset, batch=3, seed=0, faults=faults)
    return {int(v) for b in islice(batches, 8) for v in b["image"][:, 0, 0, 0]}


def evaluated(dataset: Folder, faults: Faults | None = None) -> set[int]:
    batches = eval_batches(dataset, batch=4, faults=faults)
    return {int(v) for b in batches for v in b["image"][b["index"] >= 0][:, 0, 0, 0]}


def test_what_comes_in_an_examples_place_follows_from_seed_and_step(pairs):
    root = pairs(8)
    for i in (1, 2):
        (root / "masks" / f"scene0{i}.png").write_bytes(b"")
    dataset = set_of(root, faults="skip")

    def take(start=0, seed=0, shard=(0, 1)):
        batches = train_batches(dataset, batch=4, seed=seed, start=start, shard=shard)
        return [b["image"] for b in islice(batches, 12 - start)]

    whole = take()
    for start in (1, 5, 11):
        np.testing.assert_array_equal(take(start), whole[start:])
    halves = [take(shard=(p, 2)) for p in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), whole)
    values = np.array(whole)[:, :, 0, 0, 0].ravel().tolist()
    assert set(values) == {0, 3, 4, 5, 6, 7} and len(values) == 48
    good = [v for v in values if values.count(v) > 48 // 8]  # others come more often in turn
    assert len(set(good)) > 1


def test_as_many_are_skipped_as_the_limit_says_and_listed_once(pairs, tmp_path):
    root, file = pairs(8), tmp_path / "faults.txt"
    for i in (1, 2, 3):
        (root / "masks" / f"scene0{i}.png").write_bytes(b"")
    three = set_of(root, faults="skip", max_faults=3)
    assert train(three, Faults(three, file)) and train(three, Faults(three, file))
    lines = file.read_text().splitlines()
    assert len(lines) == 3 and all("cannot be read" in line for line in lines)
    two = dataclasses.replace(three, max_faults=2)
    with pytest.raises(InputError, match="at most 2 examples .*--data.max-faults"):
        train(two)
    for i in (1, 2):
        shutil.copy(root / "masks" / "scene00.png", root / "masks" / f"scene0{i}.png")
    assert train(two)
    with pytest.raises(InputError, match="at most 2 examples .* delete .*faults.txt, and go on"):
        train(two, Faults(two, file))  # a run that is started again does not forget


def test_a_set_without_a_good_example_ends(pairs):
    root = pairs(3)
    for i in range(3):
        (root / "masks" / f"scene0{i}.png").write_bytes(b"")
    dataset = set_of(root, faults="skip")
    with pytest.raises(InputError, match="none can: `encdec check`"):
        train(dataset)
    assert evaluated(dataset) == set()


def test_classes_are_found_in_the_masks_that_can_be_read(folder):
    root = folder(3)
    (root / "masks" / "scene00.png").write_bytes(b"")
    assert len(Folder(root, faults="skip", share=0.3).classes) == 3
    with pytest.raises(InputError, match="cannot be read"):
        _ = Folder(root, share=0.3).classes


def test_a_list_that_cannot_be_written_is_one_clear_line(pairs, tmp_path):
    root = pairs(3)
    (root / "masks" / "scene01.png").write_bytes(b"")
    dataset = set_of(root, faults="skip")
    with pytest.raises(InputError, match="could not be written"):
        train(dataset, Faults(dataset, tmp_path / "lost" / "faults.txt"))


@pytest.mark.parametrize("worst", [70_000, 2**31 - 1, -1])
def test_instances_that_would_fill_the_memory_are_refused(tmp_path, image_at, worst):
    image_at(tmp_path / "train" / "images" / "a.png")
    (tmp_path / "train" / "masks").mkdir()
    ids = np.full((12, 20), worst, np.int32)
    Image.fromarray(ids).save(tmp_path / "train" / "masks" / "a.tif")
    batches = train_batches(DSB2018(tmp_path), batch=1, seed=0, keys=("instances",))
    with pytest.raises(InputError, match=f"a.tif: instances from 0 to 65535 .*{worst} came"):
        next(batches)


def test_a_negative_limit_is_refused():
    with pytest.raises(InputError, match="--data.max-faults"):
        Folder(max_faults=-1)


def test_unpaired_files_of_a_set_that_skips_are_noted(pairs):
    root = pairs(3)
    (root / "images" / "scene01.png").unlink()
    dataset = set_of(root, faults="skip")
    faults = Faults(dataset)
    assert len(opened(dataset, "train", faults)) == 2 and "no scene01" in "".join(faults.lines)


@pytest.fixture
def five(folder, tiny):
    """An experiment on six pairs, of which one mask is empty."""
    root = folder(6)
    (root / "masks" / "scene03.png").write_bytes(b"")
    data = Folder(root, names=tuple("abcdefgh"), share=0.4, canvas=(12, 20))
    return tiny(data=data, steps=3, save_every=2, batch=4)


def test_a_run_stops_with_exit_code_2(five, call, tmp_path):
    code, _, said = call("train", "--workdir", tmp_path / "run", experiment=five)
    last = said.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and "scene03.png: cannot be read" in last


def test_a_run_that_skips_ends_and_lists_what_it_skipped(five, call, tmp_path):
    flags = ("--data.faults", "skip", "--workdir", tmp_path / "run")
    code, _, said = call("train", *flags, experiment=five)
    assert code == 0, said
    (line,) = (tmp_path / "run" / "faults.txt").read_text().splitlines()
    assert "scene03.png: cannot be read" in line and f"skipped: {line}" in said
    assert "scene03.png: cannot be read" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_stopped_at_a_file_goes_on_without_it(five, call, tmp_path):
    run = ("train", "--workdir", tmp_path / "run")
    assert call(*run, experiment=five)[0] == 2
    code, _, said = call(*run, "--data.faults", "skip", experiment=five)
    assert code == 0, said
