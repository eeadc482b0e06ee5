"""COCO's JSON: one file of boxes and masks for all images of a split."""

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encdec.data.annotations import Annotated, Annotation, Object, sound
from encdec.data.folders import REMEDY, came, check_below, there
from encdec.errors import InputError


def coco(root: Path, split: str, names: tuple[str, ...]) -> Annotated:
    """COCO: `annotations/instances_<split>.json`, a year after the split or none, and its images.

    They are in `<split>/` (with the year), `images/<split>/` or `images/`.
    """
    file = json_file(root, split)
    folder = file.stem.removeprefix("instances_")
    places = (root / folder, root / "images" / folder, root / split, root / "images")
    images = next((place for place in places if place.is_dir()), places[0])
    content = _json(file, file.stat().st_mtime_ns)
    listed = {entry["id"]: entry for entry in content["images"]}
    kinds = {kind["id"]: kind["name"] for kind in content["categories"]}
    objects, unpaired, dropped = defaultdict(list), [], []
    for entry in content["annotations"]:
        if entry["image_id"] not in listed or entry["category_id"] not in kinds:
            unpaired.append(
                f"{file} annotation {entry['id']}: its image_id {entry['image_id']} and "
                f"category_id {entry['category_id']} are wanted in the file; one is not there"
            )
            continue
        x, y, width, height = map(float, entry["bbox"])
        objects[entry["image_id"]].append(
            Object(
                kinds[entry["category_id"]],
                (y, x, y + height, x + width),
                bool(entry.get("iscrowd", 0)),
                entry.get("area"),
                entry.get("segmentation"),
            )
        )
    annotations = []
    for number, entry in listed.items():
        name, size = f"{file} image {number}", (int(entry["height"]), int(entry["width"]))
        try:
            check_below(entry["file_name"], name)
        except InputError as error:
            unpaired.append(str(error))
            continue
        path = images / entry["file_name"]
        if there(path):
            whole = sound(objects[number], size, name, dropped)
            annotations.append(Annotation(path, name, size, whole, number))
        else:
            unpaired.append(f"{path}: listed in {file}, but there is no such file")
    masked = any(entry.get("segmentation") for entry in content["annotations"])
    return Annotated(tuple(annotations), names, tuple(unpaired), tuple(dropped), masked)


def categories(file: Path) -> dict[int, str]:
    """Names of the classes by COCO's id, in the order of the ids."""
    kinds = _json(file, file.stat().st_mtime_ns)["categories"]
    return {kind["id"]: kind["name"] for kind in sorted(kinds, key=lambda kind: kind["id"])}


def json_file(root: Path, split: str) -> Path:
    """`annotations/instances_<split>.json`, or that of the one year there is."""
    folder = root / "annotations"
    files = [folder / f"instances_{split}.json", *sorted(folder.glob(f"instances_{split}2*.json"))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(
            f"COCO wants annotations/instances_{split}.json, or instances_{split}2017.json, and "
            f"the images in its folder; {came(root)}; {REMEDY}"
        )
    return files[0]


@functools.lru_cache(maxsize=4)
def _json(file: Path, changed: int) -> dict:
    """The content of a COCO file that was last changed then; large ones take many seconds."""
    try:
        content = json.loads(file.read_text("utf-8"))
        for name, keys in WANTED.items():
            for entry in content[name]:
                _check(entry, name, keys)
        for name in ("images", "categories"):  # the later one would take the place of the earlier
            ids = [entry["id"] for entry in content[name]]
            if len(ids) > len(set(ids)):
                raise ValueError(f"two {name} have the same id")
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file}: COCO's JSON with images, annotations and categories is wanted; it cannot be "
            f"read as that ({type(error).__name__}: {error}); replace it"
        ) from error


def _check(entry: Any, name: str, keys: tuple[str, ...]) -> None:
    """Raises ValueError where something is missing or of another type."""
    if missing := [key for key in keys if key not in entry]:
        raise ValueError(f"an entry of {name} lacks {', '.join(missing)}")
    for key in (*keys, *({"area", "iscrowd"} & entry.keys() if name == "annotations" else ())):
        fits, words = FORMS[key]
        if not fits(entry[key]):
            came = str(entry[key])[:40]
            raise ValueError(f"in {name} a {key} of {words} is wanted; {came} came")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300  # nor NaN


def _coordinate(value: Any) -> bool:
    """NaN and infinities, too: their box is left out later."""
    return _number(value) or isinstance(value, float) and not math.isfinite(value)


def _side(value: Any) -> bool:
    return _number(value) and value >= 0 and value == int(value)


def _box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_coordinate, value))


ID = (lambda value: isinstance(value, int | str), "a number or a text")
TEXT = (lambda value: isinstance(value, str), "text")
SIDE = (_side, "whole pixels")
FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": ID,
    "image_id": ID,
    "category_id": ID,
    "file_name": TEXT,
    "name": TEXT,
    "height": SIDE,
    "width": SIDE,
    "bbox": (_box, "4 numbers, x, y, width, height,"),
    "area": (lambda value: value is None or (_number(value) and value >= 0), "pixels"),
    "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
}
"""Whether a value can be that of a key, and what it must be."""

WANTED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""Keys of COCO's entries."""
