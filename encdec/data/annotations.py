"""Images with boxes: the truth as its file has it, made into examples."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from encdec.data.images import read_image
from encdec.data.masks import mask
from encdec.errors import InputError


class Object(NamedTuple):
    """One object of an image.

    Attributes:
      name: of its class.
      box: (y0, x0, y1, x1) in pixels, half-open.
      crowd: neither object nor background: COCO's iscrowd, VOC's difficult.
      area: pixels of its mask, where that is known.
      segmentation: its mask in COCO's form, see `masks.mask`.
    """

    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None
    segmentation: Any = None


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The truth of one image.

    Attributes:
      image: its file.
      name: where the truth comes from, for messages.
      size: rows and columns of the image as the truth has them.
      objects: those whose box has an area in the image.
      id: the image's number or name in the data set.
    """

    image: Path
    name: str
    size: tuple[int, int]
    objects: tuple[Object, ...]
    id: int | str


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A source over annotated images.

    Attributes:
      annotations: of each example, in order.
      names: of the classes, by id.
      unpaired: a line for each image without truth, truth without image, unreadable file of truth.
      dropped: a line for each box that was left out.
      masked: objects have masks.
    """

    annotations: tuple[Annotation, ...]
    names: tuple[str, ...]
    unpaired: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    masked: bool = False

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Example i with all there is."""
        return self.read(i, ("instances",))

    def read(self, i: int, keys: tuple[str, ...]) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Example i; "instances" and "ids", which cost time, only if `keys` have "instances".

        Raises InputError, naming the file, where image and truth do not fit.
        """
        annotation = self.annotations[i]
        image, objects = read_image(annotation.image), annotation.objects
        if image.shape[:2] != annotation.size:
            here, there = (f"{h}x{w}" for h, w in (annotation.size, image.shape[:2]))
            raise InputError(
                f"{annotation.name}: the size of the image in its file is wanted; {here} came, "
                f"{annotation.image} has {there} pixels; correct the size, and the boxes with it"
            )
        if strange := {thing.name for thing in objects} - set(self.names):
            raise InputError(
                f"{annotation.name}: the classes {', '.join(self.names[:20])} are wanted; "
                f"{', '.join(sorted(strange))} came; correct them, or name all with --data.names"
            )
        limit = np.array(annotation.size * 2, np.float32)
        boxes = np.array([thing.box for thing in objects], np.float64).reshape(-1, 4)
        boxes = np.clip(boxes, 0, limit).astype(np.float32)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        known = [math.nan if thing.area is None else thing.area for thing in objects]
        example = {
            "image": image,
            "boxes": boxes,
            "classes": np.array([self.names.index(thing.name) for thing in objects], np.int32),
            "crowd": np.array([thing.crowd for thing in objects], bool),
            "areas": np.where(np.isnan(known), areas, np.array(known)).astype(np.float32),
        }
        if "instances" in keys and self.masked:
            example["instances"] = self.instances(i)
            example["ids"] = np.arange(1, len(objects) + 1, dtype=np.int32)
        return example

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return self.annotations[i].name

    def masks(self, i: int) -> Bool[np.ndarray, "n h w"]:
        """The mask of each object of example i, in the order of its boxes; they may overlap."""
        annotation = self.annotations[i]
        found = np.zeros((len(annotation.objects), *annotation.size), bool)
        for number, thing in enumerate(annotation.objects):
            found[number] = mask(thing.segmentation, annotation.size, annotation.name)
        return found

    def instances(self, i: int) -> Int32[np.ndarray, "h w"]:
        """Object number, from 1, at each pixel of example i; 0 where there is none.

        Where masks overlap the smaller one shows; crowds lie below all.
        """
        objects, masks = self.annotations[i].objects, self.masks(i)
        areas, instances = masks.sum((1, 2)), np.zeros(self.annotations[i].size, np.int32)
        for n in sorted(range(len(objects)), key=lambda n: (not objects[n].crowd, -areas[n])):
            instances[masks[n]] = n + 1
        return instances


def sound(
    objects: Iterable[Object], size: tuple[int, int], name: str, dropped: list[str]
) -> tuple[Object, ...]:
    """Objects whose box has an area within `size`; a line to `dropped` for each other one."""
    kept = []
    for number, thing in enumerate(objects, start=1):
        y0, x0, y1, x1 = thing.box
        if all(map(math.isfinite, thing.box)) and _shows(thing.box, size):
            kept.append(thing)
        else:
            dropped.append(
                f"{name}: box {number} ({thing.name}) has no area in the image: "
                f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
            )
    return tuple(kept)


def _shows(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Whether a finite box has an area in the image, in the float32 that examples have."""
    y0, x0, y1, x1 = (np.float32(min(max(v, 0), size[i % 2])) for i, v in enumerate(box))
    return bool(y0 < y1 and x0 < x1)
