"""The one place that opens files of images and masks: by Pillow alone, whatever else is installed.

Only the formats of `FORMATS` are tried, of whatever name the file is: Pillow knows some that start
another program (EPS). The EXIF orientation tag is ignored for images and masks alike, so that both
stay in the file's own grid. Colours are converted without their profile, CMYK's too.
"""

import contextlib
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image
from scipy.io import loadmat

from encdec.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"}

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
"""Pillow's names of what is read."""

LOSSY = ("JPEG", "MPO")
"""Formats that change the ids of a mask."""

PIXELS = 89_478_485
"""Most of an image, where Pillow warns of a decompression bomb: 9,459 by 9,459."""


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image of 8 bits a channel to RGB: grey is repeated, alpha dropped.

    Raises:
      InputError: it is no such image, or one of many pages, of more than `PIXELS`, or without any.
    """
    if os.path.isdir(path):  # unlike Path, of a name too long it says no
        raise InputError(f"{path} is a folder, an image is wanted; name its files: {path}/*.png")
    if (pages := count_pages(path)) > 1:
        raise InputError(f"{path}: one image is wanted, {pages} pages came; split it into files")
    return decode_image(path, str(path))


def read_ids(path: Path) -> Int32[np.ndarray, "h w"]:
    """Decodes a mask of ids: grey of 1, 8, 16 or 32 bits, a palette's indices, or a .mat of SBD.

    Raises:
      InputError: it is no such mask, or one that was compressed with losses, else as `read_image`.
    """
    return _read_mat(path) if path.suffix == ".mat" else decode_ids(path, str(path))


def read_pages(path: Path) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Decodes each page of a TIFF stack, each picture of an animation, or the one image, and says
    with each how many there are.

    Raises:
      InputError: as `read_image`, with the number of the page, from 0, where there are several.
    """
    _verify(path, str(path))
    with _opened(path, str(path)) as image:
        pages = _pages(image)
        for page in range(pages):
            image.seek(page)
            yield pages, _decoded(image, f"{path} page {page}" if pages > 1 else str(path))


def decode_image(file: Path | BytesIO, name: str, page: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """The same for an open file, or a page of it from 0; `name` is what messages call it."""
    _verify(file, name)
    with _opened(file, name) as image:
        image.seek(page)
        return _decoded(image, name)


def _decoded(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    _check_size(image, name)
    deep = ";16" in str(image.tile)  # Pillow would leave out the lower 8 bits of RGB
    if deep or image.mode.startswith("I") or image.mode == "F":
        raise InputError(
            f"{name}: an image of 8 bits a channel is wanted, mode {image.mode} came"
            f"{', of 16 bits' * deep}; convert it (which value becomes 255 is yours to say)"
        )
    return np.array(image.convert("RGB"))


def decode_ids(file: Path | BytesIO, name: str, page: int = 0) -> Int32[np.ndarray, "h w"]:
    """The same for an open file, or a page of it from 0; `name` is what messages call it."""
    _verify(file, name)
    with _opened(file, name) as mask:
        mask.seek(page)
        _check_size(mask, name)
        if mask.mode not in ("1", "L", "P", "I;16", "I;16B", "I"):
            raise InputError(
                f"{name}: a mask of one channel with class ids (grey or palette) is wanted, mode "
                f"{mask.mode} came; write whole numbers, 0 to 255, instead"
            )
        if mask.format in LOSSY:
            raise InputError(
                f"{name}: a mask without losses is wanted, {mask.format} came, whose compression "
                "changes ids; write it as PNG from where it comes from"
            )
        return np.array(mask).astype(np.int32)


def count_pages(path: Path) -> int:
    """Pages of a TIFF stack, pictures of an animation; 1 of any other image."""
    with _opened(path, str(path)) as image:
        return _pages(image)


def _pages(image: Image.Image) -> int:
    # A telephone's JPEG may hold a preview, too: Pillow's MPO.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if not 1 <= width * height <= PIXELS:
        raise InputError(
            f"{name}: an image of 1 to {PIXELS:,} pixels is wanted; {height}x{width} came; cut a "
            "large one into parts"
        )


def _verify(file: Path | BytesIO, name: str) -> None:
    """Compares a PNG's checksums: in decoding, Pillow leaves out those of the pixels."""
    with _opened(file, name) as image:
        _check_size(image, name)
        if image.format == "PNG":
            image.verify()
    if isinstance(file, BytesIO):
        file.seek(0)


@contextlib.contextmanager
def _opened(file: Path | BytesIO, name: str) -> Iterator[Image.Image]:
    try:
        if isinstance(file, Path) and not file.is_file():  # of a pipe one would wait for ever
            raise InputError(f"{name}: wanted an image; there is no such file")
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # Pillow raises what its many formats raise, KeyError for one
        raise InputError(f"{name}: cannot be read as an image ({error}); replace it") from error


def _read_mat(path: Path) -> Int32[np.ndarray, "h w"]:
    try:
        ids = loadmat(path, variable_names="GTcls")["GTcls"]["Segmentation"][0, 0]
        if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "uib":
            raise TypeError(f"Segmentation of {ids.dtype}, shape {ids.shape}")
        return ids.astype(np.int32)
    except FileNotFoundError as error:
        raise InputError(f"{path}: wanted a mask; there is no such file") from error
    except Exception as error:  # scipy raises what it stumbles over, zlib.error for one
        raise InputError(
            f"{path}: a MATLAB file with GTcls.Segmentation is wanted; it cannot be read as one "
            f"({type(error).__name__}: {error}); replace it"
        ) from error
