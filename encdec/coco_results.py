"""Detections and true objects as COCO's JSON, which pycocotools and others score.

Boxes are (x, y, width, height) there, classes are category ids with gaps, masks are run lengths.
Results of one kind lie in a file: with boxes beside the masks pycocotools would take a mask's area
from its box.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from encdec.average_precision import Objects
from encdec.errors import InputError
from encdec.masks import compress, expand, runs, unrun

FILES = {"boxes": "detections.json", "masks": "masks.json"}
"""The file of each kind of result, in a folder of predictions."""

Entry = dict[str, Any]
"""One object: "image_id", "category_id", "bbox" or "segmentation", "score" if it was found."""


def results(
    found: Objects,
    image: int,
    categories: tuple[int, ...],
    by: Literal["boxes", "masks"] = "boxes",
) -> list[Entry]:
    """The valid detections of one image, in their order.

    Args:
      found: as in `average_precision.measure`; masks are as large as the image (`masks.paste`).
      image: id of the image.
      categories: category id of each class.
      by: what the result gives.
    """
    shown = found.get("valid", np.ones(len(found["classes"]), bool))
    entries = _entries(found, shown, image, categories, by)
    for entry, score in zip(entries, found["scores"][shown], strict=True):
        entry["score"] = float(score)
    return entries


def truth(
    objects: dict[int, Objects],
    sizes: dict[int, tuple[int, int]],
    classes: tuple[str, ...],
    categories: tuple[int, ...],
) -> dict[str, list[Entry]]:
    """The annotation file of a data set: its "images", "categories" and "annotations".

    Args:
      objects: the true objects by id of the image, as in `average_precision.measure`, with masks or
        without them.
      sizes: rows and columns by id of the image; images without objects count too.
      classes: their names.
      categories: category id of each class.
    """
    annotations = []
    for image, own in objects.items():
        shown = np.flatnonzero(own.get("box_mask", np.ones(len(own["classes"]), bool)))
        entries = _entries(own, shown, image, categories, "boxes")
        if "masks" in own:
            outlines = _entries(own, shown, image, categories, "masks")
            entries = [a | b for a, b in zip(entries, outlines, strict=True)]
        areas, crowd = _areas(own), own.get("crowd", np.zeros(len(own["classes"]), bool))
        for i, entry in zip(shown, entries, strict=True):
            number = len(annotations) + 1  # from 1: pycocotools takes 0 for no object
            own_facts = {"id": number, "area": float(areas[i]), "iscrowd": int(crowd[i])}
            annotations.append(entry | own_facts)
    named = zip(categories, classes, strict=True)
    return {
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sizes.items()],
        "categories": [{"id": number, "name": name} for number, name in named],
        "annotations": annotations,
    }


def _areas(objects: Objects) -> Shaped[np.ndarray, "n"]:
    """In square pixels: as given, or of the masks, or of the boxes."""
    if "areas" in objects:
        return objects["areas"]
    if "masks" in objects:
        return objects["masks"].sum((1, 2))
    boxes = objects["boxes"].astype(np.float64)
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _entries(
    objects: Objects,
    shown: Shaped[np.ndarray, "n"],
    image: int,
    categories: tuple[int, ...],
    by: Literal["boxes", "masks"],
) -> list[Entry]:
    """What results and annotations have in common."""
    if by not in objects:
        raise InputError(
            f"results by {by} need them; got {', '.join(sorted(objects))}; "
            "take by='boxes', or a model with a mask head"
        )
    entries = []
    for kind, what in zip(objects["classes"][shown], objects[by][shown], strict=True):
        if not 0 <= kind < len(categories):
            raise InputError(
                f"classes of objects are 0 to {len(categories) - 1}, as there are category ids; "
                f"got {kind}; give an id for each class"
            )
        entry: Entry = {"image_id": image, "category_id": categories[kind]}
        if by == "boxes":
            y0, x0, y1, x1 = what.astype(np.float64).tolist()
            entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        else:
            entry["segmentation"] = {"size": list(what.shape), "counts": compress(runs(what))}
        entries.append(entry)
    return entries


def found(entries: list[Entry], categories: tuple[int, ...]) -> dict[int, Objects]:
    """Detections by id of the image, best first: what `results` wrote.

    Those given by masks have the tight box of the mask; an empty mask has the box 0, 0, 0, 0.

    Raises:
      InputError: an entry lacks something, or its category is not among `categories`.
    """
    by_image: dict[int, list[tuple]] = {}
    for i, entry in enumerate(entries):
        needed = {"image_id", "category_id", "score"}
        lacks = needed - set(entry) or not {"bbox", "segmentation"} & set(entry)
        if lacks or entry["category_id"] not in categories:
            raise InputError(
                "a result has image_id, category_id (one of the data set's), score, and bbox or "
                f"segmentation; got {entry} at place {i}; name the results of this data set"
            )
        kind = categories.index(entry["category_id"])
        try:
            row = _row(entry, kind)
            by_image.setdefault(entry["image_id"], []).append(row)
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise InputError(
                "a result has a finite score, a bbox of 4 finite numbers, run lengths of a mask; "
                f"got {str(entry)[:200]} at place {i} ({error!r:.80}); write it anew"
            ) from error
    return {image: _objects(rows) for image, rows in by_image.items()}


def _row(entry: Entry, kind: int) -> tuple:
    """(score, class, box, mask) of a result."""
    mask = _mask(entry["segmentation"]) if "segmentation" in entry else None
    x, y, width, height = map(float, entry.get("bbox", (0, 0, 0, 0)))
    box = (y, x, y + height, x + width) if "bbox" in entry else _tight(mask)
    score = float(entry["score"])
    if not np.isfinite(score) or not np.abs(box).max() < 1e9:  # nor NaN
        raise ValueError("a number that is not finite, or far away")
    return score, kind, box, mask


def _objects(rows: list[tuple]) -> Objects:
    """Columns of (score, class, box, mask)."""
    scores, kinds, boxes, masks = zip(*sorted(rows, key=lambda row: -row[0]), strict=True)
    if len({None if mask is None else mask.shape for mask in masks} - {None}) > 1:
        raise InputError("masks of an image have one size; got several; write the results anew")
    objects = {
        "boxes": np.array(boxes, np.float32),
        "scores": np.array(scores, np.float32),
        "classes": np.array(kinds, np.int32),
    }
    return objects if any(m is None for m in masks) else objects | {"masks": np.stack(masks)}


def _mask(segmentation: Entry) -> Shaped[np.ndarray, "h w"]:
    """The mask of run lengths, compressed or not."""
    counts, (rows, columns) = segmentation["counts"], segmentation["size"]
    return unrun(expand(counts) if isinstance(counts, str) else counts, (rows, columns))


def _tight(mask: Shaped[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """The least box around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def write(path: Path, entries: list[Entry] | dict[str, list[Entry]]) -> None:
    """Writes `results` (of all images, in one list) or `truth` as JSON."""
    path.write_text(json.dumps(entries, separators=(",", ":")))


def read(path: Path) -> list[Entry]:
    """The results of a file.

    Raises:
      InputError: the file is no JSON list.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"results are a JSON file; got {path}: {error}; name another") from error
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(
            f"results are a JSON list of detections; got another thing in {path}; "
            "name a file of results, not of annotations"
        )
    return entries
