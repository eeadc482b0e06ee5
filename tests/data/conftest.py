"""Tiny data sets in files, and the folder of real ones where there is one."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (12, 20)  # rows, columns


def write_image(path: Path, value: int = 90, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_mask(path: Path, ids: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(ids)
    if palette:
        mask.putpalette([7 * i % 256 for i in range(768)])
    mask.save(path)


@pytest.fixture
def ids() -> np.ndarray:
    """A mask with class i in column i modulo 3, and a column of 255."""
    ids = np.tile((np.arange(SIZE[1]) % 3).astype(np.uint8), (SIZE[0], 1))
    ids[:, -1] = 255
    return ids


@pytest.fixture
def folder(tmp_path: Path, ids: np.ndarray) -> Callable[[int], Path]:
    """Writes `images/` and `masks/` of n pairs whose image i has the grey value i."""

    def make(n: int) -> Path:
        for i in range(n):
            write_image(tmp_path / "images" / f"scene{i:02}.png", value=i)
            write_mask(tmp_path / "masks" / f"scene{i:02}.png", ids)
        return tmp_path

    return make


@pytest.fixture
def image_at() -> Callable:
    return write_image


@pytest.fixture
def mask_at() -> Callable:
    return write_mask


@pytest.fixture
def real() -> Path:
    """The folder of real data sets."""
    if not (data := os.environ.get("ENCDEC_DATA")):
        pytest.skip("set ENCDEC_DATA to the folder that holds CamVid/ to test on real files")
    return Path(data)
