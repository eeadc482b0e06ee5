"""Pascal VOC's XML: a file of boxes beside each image."""

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from encdec.data.annotations import Annotated, Annotation, Object, sound
from encdec.data.folders import there, voc_names
from encdec.data.images import SUFFIXES, read_image
from encdec.errors import InputError

LARGEST = 2**24
"""Bytes of a file of boxes; a hundred thousand objects need no more."""


def voc(root: Path, split: str, names: tuple[str, ...] = ()) -> Annotated:
    """Pascal VOC: `ImageSets/Main/<split>.txt`, `Annotations/*.xml`, `JPEGImages/`.

    Without `names` the classes are those found in the split, in alphabetical order.
    """
    annotations, unpaired, dropped = [], [], []
    for line in voc_names(root, "Main", split, "Annotations"):
        file = root / "Annotations" / f"{line}.xml"
        if not there(file):  # VOC's lists of one class have a second column
            file = root / "Annotations" / f"{line.split()[0]}.xml"
        stem = str(file.relative_to(root / "Annotations"))[: -len(".xml")]
        paths = (root / "JPEGImages" / f"{stem}{suffix}" for suffix in sorted(SUFFIXES))
        image = next((path for path in paths if there(path)), None)
        if image is None or not there(file):
            lost = file if image else root / "JPEGImages" / f"{stem}.jpg"
            unpaired.append(f"{lost}: listed, but there is no such file")
            continue
        try:
            size, objects = _xml(file)
            if not all(size):  # labelling tools write 0 where they did not look
                size = read_image(image).shape[:2]
        except InputError as error:
            unpaired.append(str(error))
            continue
        objects = sound(objects, size, str(file), dropped)
        annotations.append(Annotation(image, str(file), size, objects, stem))
    found = {thing.name for annotation in annotations for thing in annotation.objects}
    names = names or tuple(sorted(found))
    return Annotated(tuple(annotations), names, tuple(unpaired), tuple(dropped))


def _xml(file: Path) -> tuple[tuple[int, int], list[Object]]:
    """Size and objects of a VOC file, whose pixels count from 1 and whose ends are included.

    Raises:
      InputError: it is no such file.
    """
    try:
        root = _tree(file)
        height, width = (int(root.findtext(f"size/{side}", "0")) for side in ("height", "width"))
        return (height, width), [_object(thing) for thing in root.iter("object")]
    except (OSError, expat.ExpatError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: VOC's XML with size, name and bndbox of every object is wanted; it cannot be "
            f"read as that ({type(error).__name__}: {error}); replace it"
        ) from error


def _object(thing: ElementTree.Element) -> Object:
    name, box = thing.findtext("name"), thing.find("bndbox")
    low, high = (
        [float(box.findtext(side)) for side in sides]
        for sides in (("ymin", "xmin"), ("ymax", "xmax"))
    )
    if not name:
        raise ValueError("an object without a name")
    if min(np.subtract(high, low)) > 0:  # equal ends are a click, not a pixel
        low = [value - 1 for value in low]
    difficult = thing.findtext("difficult", "0").strip() == "1"
    return Object(name, (*low, *high), difficult)


def _tree(file: Path) -> ElementTree.Element:
    """The elements of a small file in which nothing stands for something else.

    An entity can stand for another file, or, through others, for gigabytes.
    """
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file.stat().st_size:,} bytes, more than {LARGEST:,}")

    def refuse(*declared: object) -> None:
        raise ValueError("it declares an entity")

    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.Parse(file.read_bytes(), True)
    return builder.close()
