"""Pictures of label maps: colours, overlays, error maps, contact sheets and training curves.

Numpy in, numpy out; no display, no global drawing state. Label maps hold class ids; 255 is ignored.
"""

import colorsys
import math
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Integer, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from encdec.arrays import IGNORE
from encdec.errors import InputError, visible

Picture = UInt8[np.ndarray, "_ _ 3"]
Colour = tuple[int, int, int]
Point = tuple[float, float]

GREY: Colour = (128, 128, 128)
DIM: Colour = (38, 43, 51)
RED: Colour = (255, 82, 66)

INK, FAINT, PAPER = (28, 32, 38), (105, 112, 122), (255, 255, 255)

# A neutral for background, then Okabe and Ito's colours ("Color Universal Design", 2008), then the
# colours farthest from those before them to normal, protanope and deuteranope eyes.
COLOURS: tuple[Colour, ...] = (
    *((59, 63, 71), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((196, 236, 236), (66, 26, 156), (116, 76, 16), (96, 218, 156)),
    *((136, 76, 116), (96, 136, 236), (116, 16, 16), (236, 236, 176)),
)

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f7ee0", "#8b939c")
"""Line colours that hold on white and on black; they repeat after eight."""


def palette(k: int) -> UInt8[np.ndarray, "k 3"]:
    """Colours of k classes (1..255) in one fixed order: more classes change no earlier colour."""
    if not 1 <= k <= IGNORE:
        raise InputError(f"a palette has 1 to {IGNORE} classes; got {k}; check the class count")
    colours = list(COLOURS)
    for i in range(len(COLOURS), k):  # golden angle: neighbours in the order are far apart in hue
        light, strong = (0.95, 0.55, 0.75)[i % 3], (0.45, 0.9, 0.65, 1.0)[i % 4]
        rgb = colorsys.hsv_to_rgb(i * 0.61803399 % 1, strong, light)
        colours.append(tuple(round(255 * v) for v in rgb))
    return np.array(colours[:k], np.uint8)


def colourise(labels: Integer[np.ndarray, "h w"], k: int) -> UInt8[np.ndarray, "h w 3"]:
    """Each class id in its colour; ignored pixels (255) mid grey."""
    wrong = (labels != IGNORE) & ((labels < 0) | (labels >= k))
    if wrong.any():
        worst = labels[wrong].flat[0]
        raise InputError(f"class ids are 0 to {k - 1} or {IGNORE}; got {worst}; check the classes")
    table = np.full((IGNORE + 1, 3), GREY, np.uint8)
    table[:k] = palette(k)
    return table[labels]


def overlay(
    image: UInt8[np.ndarray, "_ _ 3"],
    labels: Integer[np.ndarray, "h w"],
    k: int,
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image tinted by class, every boundary a thin white line.

    Args:
      image: as large as the labels, or smaller by an integer factor (it is then repeated).
      alpha: share of the class colour, 0 (image only) to 1 (colour only); ignored pixels too.
    """
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    picture = enlarge(image, labels.shape)
    for rows in np.array_split(np.arange(len(labels)), -(-len(labels) // 64)):
        some = slice(rows[0], rows[-1] + 1)  # as floats a large picture takes eight times as much
        mixed = (1 - alpha) * picture[some] + alpha * colourise(labels[some], k)
        mixed[edge[some]] = 0.2 * mixed[edge[some]] + 0.8 * 255
        picture[some] = mixed.round()
    return picture


def errors(
    predicted: Integer[np.ndarray, "h w"], labels: Integer[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Where the prediction is wrong (red), right (dim), or not counted (grey)."""
    picture = np.where((predicted != labels)[..., None], np.uint8(RED), np.uint8(DIM))
    return np.where((labels == IGNORE)[..., None], np.uint8(GREY), picture)


def enlarge(image: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]) -> Picture:
    """The image at `size` (rows, columns), a whole multiple of its own, by repeating pixels."""
    h, w = image.shape[:2]
    factor = max(1, size[0] // h)
    if (h * factor, w * factor) != tuple(size):
        raise InputError(
            f"labels are as large as the image or a whole multiple of it; got {size[0]}x{size[1]} "
            f"for {h}x{w}; resize one of them"
        )
    return image.repeat(factor, 0).repeat(factor, 1)


def fit(picture: Picture, width: int) -> Picture:
    """The picture at a width in pixels: crisp squares if it grows, area averages if it shrinks."""
    h, w = picture.shape[:2]
    factor = -(-width // w)
    height = max(1, round(h * width / w))
    image = Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def legend(classes: tuple[str, ...], shown: list[np.ndarray]) -> dict[str, Colour]:
    """Colour by name of the classes that occur in the label maps `shown`, in class order."""
    present = set(np.unique(np.concatenate([labels.ravel() for labels in shown])).tolist())
    colours = palette(len(classes)).tolist()
    key = {name: tuple(colours[i]) for i, name in enumerate(classes) if i in present}
    return key | ({"not counted": GREY} if IGNORE in present else {})


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The letters of every picture, `size` pixels high."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _write(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, room: int, *, bold=False
):
    """Writes one line from its left middle, smaller if it must be, to stay within `room` pixels."""
    while size > 8 and font(size, bold).getlength(text) > room:
        size -= 1
    draw.text((x, y), visible(text), INK if bold else FAINT, font(size, bold), anchor="lm")


def grid(
    rows: list[list[Picture]],
    titles: list[str],
    captions: list[str],
    key: dict[str, Colour] | None = None,
    width: int = 1800,
) -> Picture:
    """A contact sheet on white: columns under their titles, a caption below each row, the key last.

    Args:
      rows: pictures of any size; each fills its column, so a row may be short but not long.
      titles: one for each column; a second line ("name\\nremark") is set smaller.
      captions: one for each row; "" takes no room.
      key: colour by name, for example `legend(classes, labels)`.
      width: pixels; the default is read at 900 on a page, on screens of double density.
    """
    if not rows or len(captions) != len(rows) or any(len(row) > len(titles) for row in rows):
        raise InputError(
            f"a grid has a caption for each row and a title for each column; got {len(rows)} rows "
            f"with {len(captions)} captions and {len(titles)} titles; add what lacks"
        )
    margin, gap, line, text = 24, 14, 40, 27
    cell = (width - 2 * margin - gap * (len(titles) - 1)) // len(titles)
    if cell < 8:
        raise InputError(f"a column has at least 8 pixels; got {cell}; take fewer columns")
    left = [margin + i * (cell + gap) for i in range(len(titles))]
    fitted = [[fit(picture, cell) for picture in row] for row in rows]
    heights = [max((len(picture) for picture in row), default=0) for row in fitted]

    lines = max(title.count("\n") for title in titles) + 1
    head = margin // 2 + lines * line
    body = sum(heights) + gap * len(rows) + line * sum(map(bool, captions))
    spots, x, y = [], margin, head + body + line // 2 + 6
    for name in key or ():  # the key wraps like words
        room = round(font(text).getlength(name)) + 80
        if x > margin and x + room > width - margin:
            x, y = margin, y + line
        spots.append((name, x, y))
        x += room
    sheet = Image.new("RGB", (width, y + line if key else head + body + margin // 2), PAPER)
    draw = ImageDraw.Draw(sheet)

    for x, title in zip(left, titles, strict=True):
        for i, words in enumerate(title.split("\n")):
            y = margin // 2 + line * i + line // 2
            _write(draw, x, y, words, text - 3 * (i > 0), cell, bold=i == 0)
    y = head
    for row, height, caption in zip(fitted, heights, captions, strict=True):
        for x, picture in zip(left, row, strict=False):
            sheet.paste(Image.fromarray(picture), (x, y))
        y += height
        if caption:
            _write(draw, margin, y + line // 2 + 2, caption, text - 3, width - 2 * margin)
            y += line
        y += gap
    for name, x, y in spots:
        box = (x, y - 12, x + 24, y + 12)
        draw.rounded_rectangle(box, 5, key[name])
        _write(draw, x + 34, y, name, text, width)
    return np.asarray(sheet)


def curves(panels: dict[str, dict[str, list[Point]]], *, key: bool) -> Figure:
    """One panel for each quantity, one line for each name, colours by order of first appearance.

    Args:
      panels: {quantity: {name: [(step, value), …]}}; points that are not finite are left out.
      key: whether the names stand above the panels.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    columns = max(1, len(panels))
    figure = Figure(figsize=(3.3 * columns, 2.5 + 0.3 * key), layout="constrained")
    drawn = {}
    for i, (quantity, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, columns, i + 1)
        for name, points in lines.items():
            finite = np.array([p for p in points if np.isfinite(p[1])]).reshape(-1, 2)
            marker = {"marker": "o", "markersize": 3} if len(finite) <= 25 else {}
            colour = SERIES[names.index(name) % len(SERIES)]
            (drawn[name],) = axes.plot(*finite.T, color=colour, linewidth=1.6, **marker)
        axes.set_title(visible(quantity), loc="left", fontsize=11, parse_math=False)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=9, length=0)
        axes.grid(axis="y", color="#8b939c", alpha=0.3, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_alpha(0.4)
        axes.margins(x=0.02)
        axes.locator_params(nbins=5)
        axes.locator_params(axis="x", integer=True)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    if key and drawn:
        shown, options = map(visible, drawn), {"ncols": 6, "frameon": False, "fontsize": 10}
        legend = figure.legend(drawn.values(), shown, loc="outside upper left", **options)
        for text in legend.get_texts():
            text.set_parse_math(False)  # "$" in a name begins no formula
    return figure


def smooth(points: list[Point]) -> list[Point]:
    """Moving average over about a twentieth of the line, unbiased at its start."""
    keep, total, weight, averages = 1 - 1 / max(1.0, len(points) / 20), 0.0, 0.0, []
    for step, value in points:
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
            averages.append((step, total / weight))
    return averages


def differences(samples: list[dict], most: int) -> list[dict]:
    """Crops, a third of the shorter side, where most pairs of models disagree; one a sample.

    Args:
      samples: {"image", "label", "predictions": {name: labels}}; a lone model is paired with truth.

    Returns:
      At most `most`, strongest first: a sample of the crop, with "frame" (the square of the image
      around it, the crop framed), "disagreement" (share of pairs that differ, as grey) and "where".
    """
    found = []
    for i, sample in enumerate(samples):
        label, voters = sample["label"], list(sample["predictions"].values())
        pairs = list(combinations(voters if len(voters) > 1 else [*voters, label], 2))
        differ = np.mean([(a != b) & (label != IGNORE) for a, b in pairs], axis=0)
        side = max(1, min(label.shape) // 3)
        near = uniform_filter(differ, side, mode="constant")
        near = near[side // 2 : side // 2 + label.shape[0] - side + 1]
        near = near[:, side // 2 : side // 2 + label.shape[1] - side + 1]
        y, x = (int(v) for v in np.unravel_index(near.argmax(), near.shape))
        part = (slice(y, y + side), slice(x, x + side))

        image, rim = enlarge(sample["image"], label.shape), max(1, side // 24)
        inner = (slice(y + rim, y + side - rim), slice(x + rim, x + side - rim))
        frame = image.copy()
        frame[part] = 255
        frame[inner] = image[inner]
        square = min(label.shape)
        top, left = (
            min(max(0, c + side // 2 - square // 2), n - square)
            for c, n in zip((y, x), label.shape, strict=True)
        )
        grey = (255 * differ[part]).round().astype(np.uint8)
        place = f"Image {sample.get('number', i)}, rows {y} to {y + side}"
        where = f"{place}, columns {x} to {x + side}: on average "
        crop = {
            "image": image[part],
            "label": label[part],
            "predictions": {name: p[part] for name, p in sample["predictions"].items()},
            "frame": frame[top : top + square, left : left + square],
            "disagreement": np.repeat(grey[..., None], 3, axis=-1),
            "where": f"{where}two models differ on {100 * differ[part].mean():.0f} % of pixels.",
        }
        found.append((differ[part].mean(), crop))
    found.sort(key=lambda scored: -scored[0])
    return [crop for _, crop in found[:most]]
