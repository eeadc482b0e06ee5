"""The files that predictions make of an image: each is there whole, or not at all."""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from encdec import coco_results, polygons, visualize, visualize_boxes
from encdec.arrays import IGNORE
from encdec.average_precision import Objects
from encdec.data.listing import Listed, real
from encdec.errors import InputError, visible

Output = Literal["mask", "overlay", "probabilities", "polygons", "voc", "coco"]

ENDINGS: dict[str, str] = {
    "mask": "_mask.png",
    "overlay": "_overlay.png",
    "probabilities": "_probabilities.npz",
    "polygons": "_polygons.geojson",
    "voc": ".xml",
}
"""What is written after an image's name; coco's results are one file of all images."""

PAGED = {".png": ".tif"}
"""The endings of what holds several pages."""


@dataclass(frozen=True)
class Found:
    """What was found on a page: labels, with their probabilities if asked for; or objects."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: Integer[np.ndarray, "h w"] | None = None
    probabilities: Float[np.ndarray, "h w k"] | None = None
    objects: Objects | None = None


@dataclass(frozen=True)
class Form:
    """How what was found is written.

    Attributes:
      kinds: what is.
      classes: names, by their number in labels or objects.
      ids: of the categories of objects, in COCO's results.
      tiff: masks are TIFF always.
      threshold: least score of an object that is drawn, outlined or in VOC's XML.
    """

    kinds: tuple[Output, ...]
    classes: tuple[str, ...]
    ids: tuple[int, ...] = ()
    tiff: bool = False
    threshold: float = 0.5

    def target(self, out: Path, file: Listed, kind: str, pages: int = 1) -> Path:
        """Where it is written: below `out`, whatever the file's name is."""
        path = out / f"{file.stem}{ENDINGS[kind]}"
        many = len(self.classes) > IGNORE  # a palette has no more
        if pages > 1 or (kind == "mask" and (self.tiff or many)):
            return path.with_suffix(PAGED.get(path.suffix, path.suffix))
        return path


class Pictures:
    """A PNG, or a TIFF of a page for each picture."""

    def __init__(self, file: BinaryIO, path: Path, form: Form) -> None:
        self.file, self.form = file, form
        self.stack = AppendingTiffWriter(file) if path.suffix == ".tif" else None

    def add(self, found: Found, named: dict[str, Any]) -> None:
        picture = self.picture(found)
        if self.stack is None:
            picture.save(self.file, "PNG")
        else:
            picture.save(self.stack, "TIFF", compression="tiff_adobe_deflate")
            self.stack.newFrame()

    def picture(self, found: Found) -> Image.Image:
        raise NotImplementedError

    def close(self) -> None:
        if self.stack is not None:
            self.stack.close()


class Mask(Pictures):
    """Ids: a PNG's palette has the colours of the overlays, a TIFF is grey."""

    def picture(self, found: Found) -> Image.Image:
        picture = Image.fromarray(found.labels)
        if self.stack is None:
            table = np.full((IGNORE + 1, 3), visualize.GREY, np.uint8)
            table[: len(self.form.classes)] = visualize.palette(len(self.form.classes))
            picture.putpalette(table.tobytes())
        return picture


class Overlay(Pictures):
    """The image tinted by class, or with objects drawn on it, at its size."""

    def picture(self, found: Found) -> Image.Image:
        image, classes = found.image, self.form.classes
        if found.objects is None:
            return Image.fromarray(visualize.overlay(image, found.labels, len(classes)))
        options = {"width": image.shape[1], "threshold": self.form.threshold}
        return Image.fromarray(visualize_boxes.draw(image, found.objects, classes, **options))


class Probabilities:
    """An .npz: "classes", and "probabilities" (h, w, k) of float16, or "page0", "page1", …"""

    def __init__(self, file: BinaryIO, path: Path, form: Form) -> None:
        self.archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._put("classes", np.array(form.classes))

    def add(self, found: Found, named: dict[str, Any]) -> None:
        name = f"page{named['page']}" if "page" in named else "probabilities"
        self._put(name, found.probabilities.astype(np.float16))

    def _put(self, name: str, array: np.ndarray) -> None:
        with self.archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)

    def close(self) -> None:
        self.archive.close()


class Outlines:
    """GeoJSON: a polygon of each part of a class, or a feature of each object."""

    def __init__(self, file: BinaryIO, path: Path, form: Form) -> None:
        self.file, self.form, self.features = file, form, []

    def add(self, found: Found, named: dict[str, Any]) -> None:
        classes, objects = self.form.classes, found.objects
        if objects is None:
            self.features += polygons.of_labels(found.labels, classes, named)
            return
        for kind, score, mask in zip(
            objects["classes"], objects["scores"], objects["masks"], strict=True
        ):
            if score >= self.form.threshold:
                more = {"class": classes[kind], "score": float(score)}
                self.features.append(polygons.feature(polygons.outlines(mask), more | named))

    def close(self) -> None:
        self.file.write(json.dumps(polygons.collection(self.features)).encode())


class Annotation:
    """Pascal VOC's XML: pixels count from 1, and the last ones belong to the box."""

    def __init__(self, file: BinaryIO, path: Path, form: Form) -> None:
        self.file, self.form, self.root = file, form, ElementTree.Element("annotation")

    def add(self, found: Found, named: dict[str, Any]) -> None:
        if "page" in named:
            raise InputError("VOC's XML has one image, a stack came: --write coco, or split it")
        _put(self.root, "filename", visible(Path(named["image"]).name))
        height, width, depth = found.image.shape
        size = ElementTree.SubElement(self.root, "size")
        for side, length in {"width": width, "height": height, "depth": depth}.items():
            _put(size, side, length)
        objects = found.objects
        for kind, score, box in zip(
            objects["classes"], objects["scores"], objects["boxes"], strict=True
        ):
            if score >= self.form.threshold:
                thing = ElementTree.SubElement(self.root, "object")
                _put(thing, "name", visible(self.form.classes[kind]))
                _put(thing, "difficult", 0)
                frame = ElementTree.SubElement(thing, "bndbox")
                y0, x0, y1, x1 = (round(float(side)) for side in box)
                ends = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
                for side, value in ends.items():
                    _put(frame, side, value)

    def close(self) -> None:
        ElementTree.indent(self.root)
        ElementTree.ElementTree(self.root).write(self.file, "utf-8")


def _put(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


WRITERS: dict[str, type] = {
    "mask": Mask,
    "overlay": Overlay,
    "probabilities": Probabilities,
    "polygons": Outlines,
    "voc": Annotation,
}


class Files:
    """The files of one image, to which its pages are added; see `opened`."""

    def __init__(self, file: Listed, form: Form, pages: int, targets: list[Path]) -> None:
        self.file, self.form, self.pages, self.targets = file, form, pages, targets
        self.writers: list[Any] = []
        self.coco: dict[str, list[dict[str, Any]]] = {}

    def add(self, found: Found, page: int) -> None:
        """Writes what was found on the next page."""
        place = {"page": page} if self.pages > 1 else {}
        for writer in self.writers:
            writer.add(found, {"image": self.file.name} | place)
        if "coco" in self.form.kinds:
            names = dict(zip(self.form.ids, self.form.classes, strict=True))
            for by in [by for by in coco_results.FILES if by in found.objects]:
                self.coco.setdefault(by, []).extend(
                    entry
                    | {"image_id": page, "file_name": self.file.name}
                    | {"category": names[entry["category_id"]]}
                    | place
                    for entry in coco_results.results(found.objects, page, self.form.ids, by)
                )


@contextmanager
def opened(out: Path, file: Listed, form: Form, pages: int) -> Iterator[Files]:
    """Takes the pages of an image; its files are in their places when the block has ended well.

    Until then they lie beside them, hidden, and are gone where it ends otherwise.

    Raises:
      OSError: one cannot be written.
    """
    kinds = [kind for kind in form.kinds if kind in WRITERS]
    targets = [form.target(out, file, kind, pages) for kind in kinds]
    files, parts = Files(file, form, pages, targets), [_beside(path) for path in targets]
    try:
        with ExitStack() as held:
            for kind, path, part in zip(kinds, targets, parts, strict=True):
                part.parent.mkdir(parents=True, exist_ok=True)
                handle = held.enter_context(part.open("w+b"))
                files.writers.append(WRITERS[kind](handle, path, form))
            yield files
            for writer in files.writers:
                writer.close()
        for part, path in zip(parts, targets, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def targets(out: Path, file: Listed, form: Form) -> list[Path]:
    """All that may be written for an image, whether it is a stack or not."""
    kinds = [kind for kind in form.kinds if kind in WRITERS]
    own = [form.target(out, file, kind, pages) for kind in kinds for pages in (1, 2)]
    shared = [out / name for name in coco_results.FILES.values() if "coco" in form.kinds]
    return list(dict.fromkeys(own + shared))


def check_targets(files: tuple[Listed, ...], out: Path, form: Form) -> None:
    """Raises InputError where two images would write one file, or one in the place of another."""
    stems: dict[str, Listed] = {}
    given = {(real(file.path.parent), file.path.name) for file in files}
    for file in files:
        if (other := stems.setdefault(file.stem, file)) != file:
            raise InputError(
                f"{other.path} and {file.path} would write one {file.stem}_mask.png: name the "
                "folder above both, or predict them into two folders (--out)"
            )
        for path in targets(out, file, form):
            if (real(path.parent), path.name) in given:
                raise InputError(
                    f"{path} is an image to read, and would be written over: name another --out"
                )
