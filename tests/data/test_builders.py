import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from encdec.data import builders, synthetic
from encdec.data.datasets import TFDS
from encdec.errors import InputError

TINY = {"size": 16, "counts": (3, 1, 1), "seed": 5}


def test_build_gives_back_what_was_drawn(tmp_path, capfd):
    source = builders.Records(builders.shapes(tmp_path, **TINY), "train")
    drawn = [synthetic.draw(5, i, 16)["image"].tobytes() for i in range(3)]
    examples = list(source)
    assert len(examples) == 3
    assert {example["image"].tobytes() for example in examples} == set(drawn)
    for example in examples:
        scene = synthetic.draw(5, drawn.index(example["image"].tobytes()), 16)
        for key, array in scene.items():
            np.testing.assert_array_equal(example[key], array)
            assert example[key].dtype == array.dtype
    said = capfd.readouterr()
    assert said.out == said.err == ""  # of TFDS's own nothing; our bar is for a terminal


def test_a_second_call_builds_nothing(tmp_path, monkeypatch):
    builders.shapes(tmp_path, **TINY)
    monkeypatch.setattr(synthetic, "draw", None)
    assert len(builders.Records(builders.shapes(tmp_path, **TINY), "train")) == 3


def test_settings_have_folders_of_their_own(tmp_path):
    paths = {
        builders.shapes(tmp_path, **TINY | change).data_path
        for change in ({}, {"size": 17}, {"seed": 6}, {"counts": (2, 1, 1)})
    }
    assert len(paths) == 4


def test_another_process_that_is_faster_is_no_error(tmp_path, monkeypatch):
    draw, calls = synthetic.draw, []

    def race(*arguments):
        calls.append(arguments)
        if len(calls) == 1:  # another build begins and ends within this one
            builders.shapes(tmp_path, **TINY)
        return draw(*arguments)

    monkeypatch.setattr(synthetic, "draw", race)
    assert len(builders.Records(builders.shapes(tmp_path, **TINY), "train")) == 3
    assert len(calls) == 10 and not list(tmp_path.rglob("incomplete*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, error):
    draw = synthetic.draw

    def fail(seed, index, size):
        if index == 2:
            raise error
        return draw(seed, index, size)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(synthetic, "draw", fail)
        builders.shapes(tmp_path, **TINY)
    assert not list(tmp_path.rglob("*.array_record*"))
    assert len(builders.Records(builders.shapes(tmp_path, **TINY), "train")) == 3


def test_a_killed_build_is_not_taken_for_whole(tmp_path):
    script = f"""
import time
from pathlib import Path
from encdec.data import builders, synthetic
draw = synthetic.draw
synthetic.draw = lambda seed, i, size: draw(seed, i, size) if i < 2 else time.sleep(60)
builders.shapes(Path({str(tmp_path)!r}), **{TINY})
"""
    root = Path(builders.__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, env=os.environ, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("incomplete*")) and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(tmp_path.rglob("incomplete*"))
    assert len(builders.Records(builders.shapes(tmp_path, **TINY), "train")) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file cannot be written .*--data.root DIR"):
        builders.shapes(tmp_path / "file", **TINY)


def test_a_damaged_set_is_named(tmp_path):
    builder = builders.shapes(tmp_path, **TINY)
    path = next(builder.data_path.glob("*train.array_record*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(InputError, match="train record 0: cannot be read"):
        builders.Records(builders.shapes(tmp_path, **TINY), "train")[0]


class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One picture, with a palette mask of the ids 1 to 3, as oxford_iiit_pet has them."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "file_name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        image, mask = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (5, 4)).save(image, "JPEG")
        ids = Image.fromarray(np.tile(np.uint8([0, 1, 2, 3, 255]), (4, 1)))
        ids.putpalette([9 * i % 256 for i in range(768)])
        ids.save(mask, "PNG")
        pictures = {"image": image.getvalue(), "segmentation_mask": mask.getvalue()}
        yield 0, pictures | {"file_name": "a"}


@pytest.fixture
def pets(tmp_path):
    Pets(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    return tmp_path


def test_any_tfds_set_by_name(pets):
    dataset = TFDS("pets", pets, offset=1)
    example = dataset.source("test")[0]
    assert example["image"].shape == (4, 5, 3)
    assert example["label"][0].tolist() == [255, 0, 1, 2, 255]
    assert dataset.classes == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    "options, split, message",
    [
        ({"name": "no_such_set"}, "train", "TFDS has no set 'no_such_set'"),
        ({"name": ""}, "train", "give one with --data.name"),
        ({}, "val", "has the splits .*train.*; 'val' came; change --data.split"),
        ({"mask": "depth"}, "train", "its pictures are image, segmentation_mask; .*--data.mask"),
    ],
)
def test_wrong_names_are_one_clear_line(pets, options, split, message):
    with pytest.raises(InputError, match=message) as caught:
        TFDS(**{"name": "pets", "data_dir": pets} | options).source(split)
    assert "\n" not in str(caught.value)
