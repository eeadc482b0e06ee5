"""Scenes drawn from a seed: textured, overlapping shapes, with mask, instance ids and boxes.

Those to segment are made so that fine detail decides: wires are 1.3 to 2.2 pixels wide and dots 2
to 4 across, whatever the image size. Hues and textures lean to a class but overlap, so colour alone
does not tell.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from encdec.data.fit import Example

CLASSES = ("background", "disc", "ring", "rectangle", "triangle", "star", "wire", "dot")
SUPERSAMPLE = 4  # shapes are drawn this much larger and averaged: soft edges
MARGIN = 4  # pixels around a shape's window: room for its shadow


Points = Float[np.ndarray, "m 2"]
Field = Float32[np.ndarray, "h w"]


def draw(seed: int, index: int, size: int) -> Example:
    """Draws scene `index` of `seed`, a square of `size` pixels; a function of these alone.

    Returns an example: image uint8 (size, size, 3), label uint8 and instances int32 (size, size),
    boxes float32 (n, 4) around the visible part of each object, classes int32 (n,). Hidden objects
    are left out: instance i, counted from 1, has box i - 1. One scene in 32 has no object.
    """
    rng = np.random.default_rng((seed, index))
    image = _background(rng, size)
    label = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.int32)
    kinds = _kinds(rng)
    _paint(rng, kinds, [None] * len(kinds), image, label, instances)
    return {"image": _expose(rng, image), "label": label, **_objects(kinds, instances)}


def draw_objects(seed: int, index: int, size: int, sides: tuple[int, int]) -> Example:
    """Draws a scene to detect objects in, 4 to 12 of them; a function of the arguments alone.

    The longer side of an object is log-uniform in the range `sides`, in pixels; a dot's in
    its lower end to twice that, to tell it from a disc. Large ones lie below small ones.

    Returns an example: image, instances, boxes as of `draw`; classes int32 (n,), from 0, without
    background; crowd bool (n,), where the longer side of what shows is below the range.
    """
    rng = np.random.default_rng((seed, index))
    image = _background(rng, size)
    label, instances = np.zeros((size, size), np.uint8), np.zeros((size, size), np.int32)
    kinds = rng.integers(1, len(CLASSES), size=0 if rng.random() < 1 / 32 else rng.integers(4, 13))
    high = np.where(kinds == CLASSES.index("dot"), min(2 * sides[0], sides[1]), sides[1])
    spans = np.exp(rng.uniform(np.log(sides[0]), np.log(high)))
    order = np.argsort(-spans)
    kinds, spans = kinds[order].tolist(), spans[order].tolist()
    _paint(rng, kinds, spans, image, label, instances)
    objects = _objects(kinds, instances)
    boxes = objects["boxes"]
    shown = (boxes[:, 2:] - boxes[:, :2]).max(1)
    objects |= {"classes": objects["classes"] - 1, "crowd": shown < sides[0]}
    return {"image": _expose(rng, image), **objects}


def _paint(
    rng: np.random.Generator,
    kinds: list[int],
    sides: Sequence[float | None],
    image: Float32[np.ndarray, "s s 3"],
    label: UInt8[np.ndarray, "s s"],
    instances: Int32[np.ndarray, "s s"],
) -> None:
    """Puts the objects into the arrays, from the lowest to the topmost, at places of their own."""
    for number, (kind, side) in enumerate(zip(kinds, sides, strict=True), start=1):
        place = _cover(rng, kind, len(image), side)
        if place is None:
            continue
        rows, cols, cover = place
        window = image[rows, cols]
        window[2:, 1:] *= 1 - 0.4 * cover[:-2, :-1, None]  # shadow
        window += cover[..., None] * (_surface(rng, kind, rows, cols) - window)
        label[rows, cols][cover >= 0.5] = kind
        instances[rows, cols][cover >= 0.5] = number


def _kinds(rng: np.random.Generator) -> list[int]:
    """Classes of the objects of a scene, from the lowest to the topmost."""
    if rng.random() < 1 / 32:
        return []
    large = rng.integers(1, 6, size=rng.integers(3, 7))
    fine = np.repeat([6, 7], [rng.integers(1, 4), rng.integers(3, 9)])
    return large.tolist() + rng.permutation(fine).tolist()


def _cover(
    rng: np.random.Generator, kind: int, size: int, side: float | None
) -> tuple[slice, slice, Float32[np.ndarray, "h w"]] | None:
    """Places a shape: its window in the image and how much of each pixel there it covers.

    Its longer side is `side`, or by default that of its kind.
    """
    name = CLASSES[kind]
    radius = rng.uniform(1.0, 2.0) if name == "dot" else size * rng.uniform(0.09, 0.2)
    points, hole = _outline(rng, name)
    turn = rng.uniform(0, 2 * np.pi)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = rng.uniform(0, size, 2)
    if side is not None:
        radius = side / np.ptp(points @ spin, axis=0).max()
    points = centre + radius * points @ spin
    low = np.clip(np.floor(points.min(0)).astype(int) - MARGIN, 0, size)
    high = np.clip(np.ceil(points.max(0)).astype(int) + MARGIN, 0, size)
    if (high - low).min() <= MARGIN:
        return None  # off the picture
    canvas = Image.new("L", tuple((SUPERSAMPLE * (high - low)).tolist()))
    pen = ImageDraw.Draw(canvas)
    corners = [tuple(p) for p in (SUPERSAMPLE * (points - low)).tolist()]
    if name == "wire":
        width = rng.uniform(1.3, 2.2)
        pen.line(corners, fill=255, width=round(SUPERSAMPLE * width))
    else:
        pen.polygon(corners, fill=255)
    if hole:
        inner = centre + hole * (points - centre)
        pen.polygon([tuple(p) for p in (SUPERSAMPLE * (inner - low)).tolist()], fill=0)
    cover = np.asarray(canvas.reduce(SUPERSAMPLE), np.float32) / 255
    return slice(low[1], high[1]), slice(low[0], high[0]), cover


def _outline(rng: np.random.Generator, name: str) -> tuple[Points, float]:
    """Corners in a circle of radius 1, and the relative size of the hole in the middle."""
    if name == "wire":
        t = np.linspace(0, 1, 24)[:, None]
        a, b, c, d = rng.uniform(-1, 1, (4, 2)) + np.linspace([-1.5, 0], [1.5, 0], 4)
        return (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d, 0.0
    if name == "rectangle":
        y, x = rng.uniform(0.35, 0.85, 2)
        return np.array([[-x, -y], [x, -y], [x, y], [-x, y]]), 0.0
    corners = {"disc": 40, "ring": 40, "triangle": 3, "star": 10, "dot": 10}[name]
    angle = 2 * np.pi * np.arange(corners) / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.0) if name == "star" else np.ones(corners)
    points = reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points, rng.uniform(0.68, 0.85) if name == "ring" else 0.0


def _surface(
    rng: np.random.Generator, kind: int, rows: slice, cols: slice
) -> Float32[np.ndarray, "h w 3"]:
    """Colour of an object: two shades mixed by a texture."""
    hue = kind / (len(CLASSES) - 1) + rng.normal(0, 0.07)
    saturation, value = rng.uniform(0.45, 0.9), rng.uniform(0.75, 1.0)
    light = colorsys.hsv_to_rgb(hue % 1, saturation * 0.7, value)
    dark = colorsys.hsv_to_rgb((hue + rng.normal(0, 0.04)) % 1, saturation, value * 0.6)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    x = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :]
    mix = _texture(rng, y, x, kind if rng.random() < 0.5 else int(rng.integers(5)))[..., None]
    return np.float32(light) * mix + np.float32(dark) * (1 - mix)


def _texture(
    rng: np.random.Generator,
    y: Float32[np.ndarray, "h 1"],
    x: Float32[np.ndarray, "1 w"],
    kind: int,
) -> Field:
    """Values in [0, 1]: flat, stripes, checks, a slope, or grain."""
    turn, wave, phase = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(4, 9), rng.uniform(0, 6)
    u = (np.cos(turn) * x + np.sin(turn) * y).astype(np.float32)
    v = (np.cos(turn) * y - np.sin(turn) * x).astype(np.float32)
    match kind % 5:
        case 0:
            return np.full_like(u, rng.uniform(0.4, 1))
        case 1:
            return np.clip(0.5 + 1.5 * np.sin(wave * u + phase), 0, 1)
        case 2:
            return np.clip(0.5 + 3 * np.sin(wave * u + phase) * np.sin(wave * v), 0, 1)
        case 3:
            return (u - u.min()) / (np.ptp(u) + 1)
        case _:
            return rng.random(u.shape, np.float32)


def _background(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "s s 3"]:
    """Two muted colours mixed by clouds of several sizes, with a faint weave on some."""
    clouds = sum(
        (
            weight * _enlarge(rng.random((cells, cells), np.float32), size)
            for cells, weight in ((3, 0.5), (8, 0.3), (24, 0.2))
        ),
        start=np.zeros((size, size), np.float32),
    )
    line = np.arange(size, dtype=np.float32)
    if rng.random() < 0.5:
        clouds += 0.25 * (_texture(rng, line[:, None], line[None], int(rng.integers(1, 5))) - 0.5)
    hue = rng.random()
    ends = [
        np.float32(colorsys.hsv_to_rgb((hue + h) % 1, rng.uniform(0.1, 0.5), v))
        for h, v in ((0, rng.uniform(0.1, 0.4)), (rng.normal(0, 0.15), rng.uniform(0.5, 0.9)))
    ]
    clouds = np.clip(clouds, 0, 1)[..., None]
    return ends[0] * (1 - clouds) + ends[1] * clouds


def _enlarge(cells: Float32[np.ndarray, "n n"], size: int) -> Field:
    return np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))


def _expose(
    rng: np.random.Generator, image: Float32[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Light from one side, exposure, sensor noise; float in [0, 1] to uint8."""
    slope = np.linspace(-1, 1, len(image), dtype=np.float32)
    down, right = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = np.float32(rng.uniform(0.85, 1.2)) * (1 + down * slope[:, None] + right * slope)
    noise = rng.random(image.shape, np.float32)
    noise *= np.float32(255 * rng.uniform(0.04, 0.14))
    image = 255 * light[..., None] * image
    image += noise - noise.mean()
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _objects(kinds: list[int], instances: Int32[np.ndarray, "h w"]) -> Example:
    """Numbers the visible instances from 1, in their order, and puts a box around each."""
    found = [
        (number, kinds[number - 1], (rows.start, cols.start, rows.stop, cols.stop))
        for number, place in enumerate(ndimage.find_objects(instances), start=1)
        if place is not None
        for rows, cols in [place]
    ]
    numbers = np.zeros(len(kinds) + 1, np.int32)
    numbers[[number for number, _, _ in found]] = np.arange(1, len(found) + 1)
    return {
        "instances": numbers[instances],
        "boxes": np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
        "classes": np.array([kind for _, kind, _ in found], np.int32),
    }
