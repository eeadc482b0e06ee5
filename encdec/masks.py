"""Masks of single objects: from a box's grid to the image, their overlap, COCO's run lengths."""

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer

from encdec.errors import InputError

Masks = Bool[np.ndarray, "n h w"]
"""One mask for each object, as large as the image."""

PIECE = 1 << 16  # pixels multiplied at a time: sums stay exact in float32, and memory small


def paste(
    masks: Float[np.ndarray, "n m m"],
    boxes: Float[np.ndarray, "n 4"],
    size: tuple[int, int],
    threshold: float = 0.5,
) -> Masks:
    """The pixels of an image that lie in each object, from an m x m grid over its box.

    A grid's cells have their values at their centres and are 0 outside the box; pixels take the
    bilinear value at theirs (Mask R-CNN, He et al. 2017, §3.1: resized to the box, cut at 0.5).

    Args:
      masks: probabilities in [0, 1].
      boxes: (y0, x0, y1, x1) in pixels of the image; parts outside of it are cut off.
      size: rows and columns of the image.
      threshold: a pixel is in the mask at this probability or above.
    """
    pasted = np.zeros((len(masks), *size), bool)
    for mask, box, whole in zip(masks, boxes.astype(np.float64), pasted, strict=True):
        (rows, down), (columns, across) = (
            _weights(box[i], box[i + 2], size[i], len(mask)) for i in (0, 1)
        )
        whole[rows, columns] = down @ mask @ across.T >= threshold
    return pasted


def _weights(
    first: float, last: float, length: int, cells: int
) -> tuple[slice, Float64[np.ndarray, "_ {cells}"]]:
    """Pixels of one axis whose centres are in [first, last), and their weights of the cells."""
    start, stop = np.clip(np.ceil(np.array([first, last]) - 0.5), 0, length).astype(int)
    place = (np.arange(start, stop) + 0.5 - first) / max(last - first, 1e-9) * cells - 0.5
    return slice(start, max(start, stop)), np.maximum(0, 1 - abs(place[:, None] - np.arange(cells)))


def separate(instances: Integer[np.ndarray, "h w"], ids: Integer[np.ndarray, "n"]) -> Masks:
    """The mask of each id in a map of ids; 0 is background, so that id 0 has no pixel."""
    return (instances == ids[:, None, None]) & (ids > 0)[:, None, None]


def intersection(
    a: Bool[np.ndarray, "n h w"], b: Bool[np.ndarray, "m h w"]
) -> Float64[np.ndarray, "n m"]:
    """Pixels that lie in both, of every pair."""
    pixels = a.shape[1] * a.shape[2]
    a, b = a.reshape(len(a), pixels), b.reshape(len(b), pixels)
    both = np.zeros((len(a), len(b)))
    for start in range(0, pixels, PIECE):
        some = slice(start, start + PIECE)
        both += a[:, some].astype(np.float32) @ b[:, some].astype(np.float32).T
    return both


def runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's uncompressed counts: lengths of runs down the columns, those outside come first."""
    flat = np.concatenate([[False], mask.T.ravel()])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(turns, prepend=0, append=mask.size).tolist()


def unrun(counts: list[int], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of `runs`.

    Raises:
      InputError: the counts do not add up to the pixels of `size`.
    """
    if sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
        raise InputError(
            f"run lengths add up to {size[0]} x {size[1]} pixels, none below 0; got a sum of "
            f"{sum(counts)}; take size (rows, columns) from where the counts come from"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size[1], size[0]).T


def compress(counts: list[int]) -> str:
    """COCO's text form of run lengths.

    Each count from the fourth on is less the one two before it. A number is groups of 5 bits in
    two's complement, the lowest first; 32 is added where more follow, then 48 to make a character.
    """
    text = []
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            text.append(chr(48 + group + 32 * more))
    return "".join(text)


def expand(text: str) -> list[int]:
    """The run lengths of `compress`.

    Raises:
      InputError: a character that the form does not have, or the last number has no end.
    """
    counts, number, shift = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise InputError(
                f"compressed run lengths have characters '0' to 'o'; got {character!r}; "
                "write the masks anew"
            )
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        number -= (code & 16) << (shift - 4)  # the sign: bit 4 of the last group
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise InputError(
            f"compressed run lengths end with a whole number; got {text[-8:]!r} at the end; "
            "the text was cut: write the masks anew"
        )
    return counts
