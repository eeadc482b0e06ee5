"""COCO's forms of a mask, polygons and run lengths, as arrays of pixels. Numpy."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from encdec.errors import InputError
from encdec.masks import expand, unrun

Size = tuple[int, int]
Mask = Bool[np.ndarray, "h w"]

FAR = 1e9
"""Pixels from the image at which no corner lies."""


def mask(segmentation: Any, size: Size, name: str) -> Mask:
    """The pixels of an object in an image of `size` rows and columns.

    Args:
      segmentation: as in COCO's JSON: a list of polygons [x0, y0, x1, y1, …], whose union it is,
        or {"size": [h, w], "counts": run lengths, plain or as a string}.
      name: what messages call it.

    Raises:
      InputError: it is in neither form, or of another size.
    """
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            counts = expand(counts) if isinstance(counts, str) else counts
            if list(segmentation["size"]) == list(size):
                return unrun(counts, size)
            reason = f"size {segmentation['size']}"
        elif isinstance(segmentation, list):
            whole = np.zeros(size, bool)
            for numbers in segmentation:
                whole |= filled(np.asarray(numbers, float).reshape(-1, 2), size)
            return whole
        else:
            reason = type(segmentation).__name__
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise InputError(
        f"{name}: polygons, or run lengths of {size[0]}x{size[1]} pixels, are wanted; {reason} "
        "came; correct the segmentation"
    )


def filled(corners: Float64[np.ndarray, "m 2"], size: Size) -> Mask:
    """Pixels whose centre lies in the polygon of the corners (x, y), by the even-odd rule.

    Corners count pixels from the image's corner: the first pixel's centre is at (0.5, 0.5).
    """
    height, width = size
    x, y = corners.T
    if not np.abs(corners).max() < FAR:  # nor NaN
        raise ValueError("a corner that is no number, or far away")
    top, bottom = (int(np.clip(edge, 0, height)) for edge in (y.min(), np.ceil(y.max())))
    rows = np.arange(top, bottom) + 0.5
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    # An edge owns the upper of its ends: a row through a corner is crossed once, not twice.
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    part = (rows[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + part * (next_x[edge] - x[edge])
    first = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)  # pixel right of the crossing
    turns = np.zeros((len(rows), width + 1), np.uint8)
    np.add.at(turns, (row, first), 1)
    inside = np.zeros(size, bool)
    # Of a sum in 8 bits the lowest is right, however often it overflows.
    inside[top:bottom] = np.cumsum(turns[:, :width], 1, dtype=np.uint8) % 2 == 1
    return inside
