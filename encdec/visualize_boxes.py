"""Pictures of objects: boxes in the colour of their class, labels, scores, masks, truth beside.

Numpy in, numpy out, as `encdec.visualize`, whose colours these are: a detection data set has no
background, so that its class i has the colour of class i + 1 of a label map.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw

from encdec import average_precision
from encdec.average_precision import Objects
from encdec.errors import InputError, visible
from encdec.visualize import GREY, INK, PAPER, RED, Colour, Picture, fit, font, grid, palette

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the picture, the last ones included, as Pillow has them."""


def colours(classes: tuple[str, ...]) -> dict[str, Colour]:
    """Colour by name of the class, in the order of the data set."""
    if not classes:
        raise InputError("objects have one class at least; got none; name the data set's classes")
    return dict(zip(classes, map(tuple, palette(len(classes) + 1)[1:].tolist()), strict=True))


def draw(
    image: UInt8[np.ndarray, "h w 3"],
    objects: Objects,
    classes: tuple[str, ...],
    *,
    width: int = 900,
    threshold: float = 0.5,
    alpha: float = 0.45,
    shades: dict[str, Colour] | None = None,
) -> Picture:
    """The image at a width in pixels with the objects on it, the best on top.

    Of labels that would overlap the better one is written. Crowds are grey.

    Args:
      objects: found or true, as in `average_precision.measure`; true ones have no scores, masks are
        (n, h, w), true inside.
      threshold: of the scores; objects below it are left out.
      alpha: share of the class colour within masks, 0 to 1.
      shades: of the classes, by name; by default those of `colours`.

    Raises:
      InputError: a class is not one of `classes`; masks are not as large as the image.
    """
    objects = _chosen(objects, threshold)
    count, kinds = len(objects["classes"]), objects["classes"]
    if count and not (kinds.min() >= 0 and kinds.max() < len(classes)):
        raise InputError(
            f"classes of objects are 0 to {len(classes) - 1}; got {kinds.min()} to {kinds.max()}; "
            "name the classes that the model was trained on"
        )
    crowd = objects.get("crowd", np.zeros(count, bool))
    table = list((shades or colours(classes)).values())
    shades = [GREY if c else table[k] for k, c in zip(kinds, crowd, strict=True)]

    picture, scale = fit(image, width).copy(), width / image.shape[1]
    masks = objects.get("masks", np.zeros((0, *image.shape[:2]), bool))
    if masks.shape[1:] != image.shape[:2]:
        raise InputError(
            f"masks are as large as the image, {image.shape[0]}x{image.shape[1]}; got "
            f"{masks.shape[1]}x{masks.shape[2]}; `encdec.masks.paste` them first"
        )
    for mask, shade in zip(masks, shades, strict=False):
        _tint(picture, mask, shade, alpha)
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    frames = [_frame(box, scale) for box in objects["boxes"]]
    for frame, shade in zip(frames, shades, strict=True):
        _outline(pen, frame, shade, max(2, width // 250))

    names = ["crowd" if c else classes[k] for k, c in zip(kinds, crowd, strict=True)]
    if "scores" in objects:
        pairs = zip(names, objects["scores"], strict=True)
        names = [f"{name} {score:.2f}" for name, score in pairs]
    labels = list(zip(names, frames, shades, strict=True))[::-1]  # the best first
    _write(pen, labels, drawn.size, max(11, width // 50))
    return np.asarray(drawn)


WRONG: dict[str, Colour] = {"false": RED, "missed": (0, 114, 178)}
"""What detections and true objects are that have no partner, as classes of `draw`."""


def wrong(found: Objects, truth: Objects, threshold: float = 0.5) -> tuple[Objects, str]:
    """Of the detections that are drawn those that are false, of the true objects those that are
    missed, as objects of the classes `WRONG`; and how many they are, in words.

    A detection is false that hits no object of its class with an IoU of 0.5, see
    `average_precision.measure`; crowds are not missed.
    """
    shown, true = (
        {key: value[::-1] for key, value in _chosen(objects, threshold).items() if key != "masks"}
        for objects in (found, truth)
    )
    alone = ~true.get("crowd", np.zeros(len(true["classes"]))).astype(bool)
    counted = {key: value[alone] for key, value in true.items()} | {"scores": np.ones(alone.sum())}
    outcome = average_precision.measure(shown, true)["outcome"][:, 0, 0]
    # The other way round: which of the true objects are found.
    back = average_precision.measure(counted, shown)["outcome"][:, 0, 0]
    false = shown["boxes"][outcome == average_precision.FALSE]
    missed = counted["boxes"][back != average_precision.HIT]
    kinds = np.repeat([0, 1], [len(false), len(missed)])
    both = {"boxes": np.concatenate([false, missed]), "classes": kinds}
    return both, f"{len(false)} false, {len(missed)} missed"


def _chosen(objects: Objects, threshold: float) -> Objects:
    """The objects that are shown, by rising score, or the largest first where there is none."""
    shown = np.ones(len(objects["classes"]), bool)
    for key in {"valid", "box_mask"} & set(objects):
        shown &= objects[key].astype(bool)
    if "scores" in objects:
        shown &= objects["scores"] >= threshold
        order = np.argsort(objects["scores"], kind="stable")
    else:
        order = np.argsort(-np.prod(objects["boxes"][:, 2:] - objects["boxes"][:, :2], axis=1))
    order = order[shown[order]]
    keys = {"boxes", "classes", "scores", "crowd", "masks"} & set(objects)
    return {key: objects[key][order] for key in keys}


def _tint(picture: Picture, mask: Shaped[np.ndarray, "h w"], shade: Colour, alpha: float) -> None:
    """Mixes the colour into the picture where the mask, enlarged, is true."""
    size = picture.shape[1], picture.shape[0]
    inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    picture[inside] = ((1 - alpha) * picture[inside] + alpha * np.array([shade])).round()


def _frame(box: Shaped[np.ndarray, "4"], scale: float) -> Rectangle:
    """A box in pixels of the picture; one without an inside is a dot."""
    y0, x0, y1, x1 = (round(float(v) * scale) for v in box)
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)


def _outline(pen: ImageDraw.ImageDraw, frame: Rectangle, shade: Colour, thick: int) -> None:
    """A line just inside the box, with a thin dark one around it to stand out on any ground."""
    x0, y0, x1, y1 = frame
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=INK)
    pen.rectangle(frame, outline=shade, width=thick)


def _write(
    pen: ImageDraw.ImageDraw,
    labels: list[tuple[str, Rectangle, Colour]],
    size: tuple[int, int],
    letters: int,
) -> None:
    """Writes each label above its box, or below the upper edge, unless another stands there."""
    taken = np.zeros((0, 4), int)
    for name, (x0, y0, _, _), shade in labels:
        text = visible(name)
        wide, high = round(font(letters).getlength(text)) + 8, letters + 6
        x = max(0, min(x0, size[0] - wide))
        y = y0 - high if y0 >= high else max(y0, 0)
        spot = np.array([x, y, x + wide, y + high])
        apart = (spot[2:] <= taken[:, :2]) | (taken[:, 2:] <= spot[:2])
        if not apart.any(1).all():
            continue
        taken = np.concatenate([taken, spot[None]])
        pen.rectangle((x, y, x + wide - 1, y + high - 1), shade)
        light = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 140
        pen.text((x + 4, y + high // 2), text, INK if light else PAPER, font(letters), anchor="lm")


def sheet(
    samples: Sequence[dict],
    classes: tuple[str, ...],
    *,
    width: int = 1800,
    threshold: float = 0.5,
) -> Picture:
    """A contact sheet: on each row an image with its true objects, then with those of each model.

    Args:
      samples: {"image", "truth": objects, "predictions": {name: objects}}, the same names in each.
      width, threshold: pixels of the sheet; the least score that is drawn.

    Raises:
      InputError: there is no sample, or a name is not in all of them.
    """
    names = list(samples[0]["predictions"]) if samples else []
    if not samples or any(list(sample["predictions"]) != names for sample in samples):
        raise InputError(
            f"a sheet has samples with predictions of the same names; got {len(samples)} samples; "
            "predict each image with each model"
        )
    rows, captions, kinds, cell = [], [], set(), max(64, width // (len(names) + 1))
    for sample in samples:
        shown = [_chosen(o, threshold) for o in (sample["truth"], *sample["predictions"].values())]
        rows.append(
            [draw(sample["image"], o, classes, width=cell, threshold=threshold) for o in shown]
        )
        counts = [f"{n} {len(o['classes'])}" for n, o in zip(["true", *names], shown, strict=True)]
        captions.append(f"Objects: {', '.join(counts)}.")
        kinds |= {int(k) for o in shown for k in o["classes"]}
    key = {name: c for i, (name, c) in enumerate(colours(classes).items()) if i in kinds}
    return grid(rows, ["truth", *names], captions, key, width)
