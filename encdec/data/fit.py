"""An example's size: shrunk for the net, cropped to a canvas, padded to a fixed shape. Numpy."""

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8
from PIL import Image

from encdec.arrays import IGNORE
from encdec.errors import InputError

BUCKET = 32  # evaluated images are padded to multiples of it

MAX_BOXES = 128
"""Of an image, unless the data set says otherwise: batches are padded to it."""

OBJECTS = ("boxes", "classes", "crowd", "ids", "areas")
"""Arrays of an example that have a row for each box."""

VISIBLE = 0.3
"""Part of a box's area that a crop must leave, or the object is neither truth nor background.

About where people stop: of BCCD's boxes at the border of an image the smallest have 0.36 (RBC) and
0.27 (WBC) of the median area of the others.
"""

Example = dict[str, Shaped[np.ndarray, "..."]]
Row = dict[str, Shaped[np.ndarray | np.generic, "..."]]


def bucket(length: int) -> int:
    """The size to which an image's side of `length` pixels is padded: 32, 64, 96, 128, 160, 192,
    256, 320, …, three in an octave; above 1024 multiples of 256. Images of many sizes so share few
    compiled programs."""
    if length > 1024:
        return -(-length // 256) * 256
    octave = max(length - 1, BUCKET).bit_length() - 1
    sizes = (round(2**octave * part) for part in (1, 1.25, 1.5, 2))
    return next(n for n in sizes if n >= length and n % BUCKET == 0)


def shrunk(example: Example, factor: int) -> Example:
    """The example at 1 / `factor` of its size, (ceil(h / factor), ceil(w / factor)).

    The image is averaged over squares of `factor` pixels, the boxes are divided by it, the areas
    by its square; label, instances and weights stay large, padded to `factor` times the image.
    """
    if factor == 1:
        return example
    image = np.array(Image.fromarray(example["image"]).reduce(factor))
    size = image.shape[:2]
    example = _bordered(example | {"image": image}, size, tuple(n * factor for n in size))
    if "boxes" in example:
        example["boxes"] = example["boxes"] / np.float32(factor)
    if "areas" in example:
        example["areas"] = example["areas"] / np.float32(factor**2)
    return example


def magnification(size: tuple[int, ...], side: tuple[int, int] | None) -> float:
    """By which an image of `size` has the shorter `side`, or the longer one if that is less."""
    return 1.0 if side is None else min(side[0] / min(size), side[1] / max(size))


def fitted(example: Example, side: tuple[int, int] | None) -> Example:
    """The example at the size that `side` says, with "scale" float32 (2,), by which rows and
    columns grew.

    The image is resized bilinearly, and averaged where it gets smaller; labels, instances and
    weights are the nearest, boxes are multiplied by the scale, areas by both of its numbers.

    Raises:
      InputError: boxes with instances.
    """
    if side is None:
        return example
    if {"boxes", "instances"} <= set(example):
        raise InputError("boxes with masks are not resized to a side: leave --data.side out")
    old = example["image"].shape[:2]
    factor = magnification(old, side)
    rows, columns = new = tuple(max(1, round(n * factor)) for n in old)
    image = Image.fromarray(example["image"]).resize((columns, rows), Image.Resampling.BILINEAR)
    scale = np.float32(new) / np.float32(old)
    example = example | {"image": np.array(image), "scale": scale}
    at = [((np.arange(n) + 0.5) * o / n).astype(int) for n, o in zip(new, old, strict=True)]
    for key in {"label", "instances", "weight"} & set(example):
        example[key] = example[key][np.ix_(*at)]
    if "boxes" in example:
        example["boxes"] = example["boxes"] * np.tile(scale, 2)[None]
    if "areas" in example:
        example["areas"] = example["areas"] * scale.prod()
    return example


def thinned(
    pixels: Int32[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"],
    factor: int,
) -> np.ndarray:
    """Every `factor`-th label, instance or weight, from the middle of its square."""
    return pixels[factor // 2 :: factor, factor // 2 :: factor]


def cropped(example: Example, canvas: tuple[int, int], rng: np.random.Generator) -> Example:
    """A window of at most `canvas`, at a place drawn from `rng`.

    Boxes are cut, those with a side under 1 pixel dropped. Where the centre of a box leaves, or
    less than `VISIBLE` of its area remains, it becomes one of the crowd: SSD §2.2 keeps a box by
    its centre too, but takes the part of an object that stays for background.
    """
    size = example["image"].shape[:2]
    top, left = (int(rng.integers(max(0, n - c) + 1)) for n, c in zip(size, canvas, strict=True))
    example = dict(example)
    for key in {"image", "label", "instances", "weight"} & set(example):
        example[key] = example[key][top : top + canvas[0], left : left + canvas[1]]
    if "boxes" in example:
        height, width = example["image"].shape[:2]
        corner = np.array([top, left, top, left], np.float32)
        limit = np.array([height, width, height, width], np.float32)
        whole = example["boxes"] - corner
        example["boxes"] = boxes = np.clip(whole, 0, limit)
        centre = (whole[:, :2] + whole[:, 2:]) / 2
        left = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        gone = ((centre < 0) | (centre > limit[:2])).any(1)
        gone |= left < VISIBLE * (whole[:, 2:] - whole[:, :2]).prod(1)
        example["crowd"] = example["crowd"] | gone
        kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        example |= {key: example[key][kept] for key in set(OBJECTS) & set(example)}
    return example


def padded(example: Example, size: tuple[int, ...], factor: int, objects: int = MAX_BOXES) -> Row:
    """Fixed shapes: image of `size`, its maps of `factor` times that, `objects` boxes and mask."""
    valid = np.array(example["image"].shape[:2], np.int32)
    row = _bordered(example, size, tuple(n * factor for n in size)) | {"size": valid}
    if "boxes" in row:
        number = len(row["boxes"])
        for key in set(OBJECTS) & set(row):
            border = [(0, objects - number)] + [(0, 0)] * (row[key].ndim - 1)
            row[key] = np.pad(row[key], border)
        row["box_mask"] = np.arange(objects) < number
    return row


def _bordered(example: Example, size: tuple[int, ...], fine: tuple[int, ...]) -> Example:
    """Pads at the bottom and right: the image to `size`, label, instances, weight to `fine`."""
    example = dict(example)
    for key, fill in (("image", None), ("label", IGNORE), ("instances", 0), ("weight", 0)):
        if key not in example:
            continue
        array, goal = example[key], size if key == "image" else fine
        border = [(0, goal[0] - array.shape[0]), (0, goal[1] - array.shape[1])]
        if border == [(0, 0), (0, 0)]:
            continue
        if fill is None:
            example[key] = np.pad(array, [*border, (0, 0)], mode="edge")
        else:
            example[key] = np.pad(array, border, constant_values=fill)
    return example
