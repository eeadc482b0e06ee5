"""Data sets with boxes: Pascal VOC, BCCD, COCO, any of TensorFlow's, drawn scenes.

Their classes are objects: background is none of them.
"""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

from encdec.data import coco, synthetic, voc
from encdec.data.annotations import Annotated
from encdec.data.datasets import Dataset, Shapes, Source, cache_folder, known
from encdec.errors import InputError


@dataclasses.dataclass(frozen=True)
class VOCDetection(Dataset):
    """Boxes in Pascal VOC's form; its difficult objects are crowd.

    Attributes:
      root: folder with JPEGImages/, Annotations/ and ImageSets/Main/; by default
        $ENCDEC_DATA/VOC2012.
      names: of the classes, by id; by default those found in "train", in alphabetical order.
      canvas: see `Dataset`; likewise below.
    """

    root: Path | None = None
    names: tuple[str, ...] = ()
    canvas: tuple[int, int] = (512, 512)
    truth: ClassVar[tuple[str, ...]] = ("boxes",)
    folder: ClassVar[str] = "VOC2012"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names or _found(self.root or known(self.folder))

    def source(self, split: str) -> Annotated:
        return voc.voc(self.root or known(self.folder), split, self.classes)


@dataclasses.dataclass(frozen=True)
class BCCD(VOCDetection):
    """Blood cells, 292 images of 480x640 pixels; red ones are not all labelled.

    Attributes:
      root: folder in the form of Pascal VOC; by default $ENCDEC_DATA/BCCD.
    """

    names: tuple[str, ...] = ("RBC", "WBC", "Platelets")
    canvas: tuple[int, int] = (480, 640)
    folder: ClassVar[str] = "BCCD"


@dataclasses.dataclass(frozen=True)
class COCODetection(Dataset):
    """Boxes and masks in COCO's form; `iscrowd` is crowd.

    Attributes:
      root: folder with annotations/instances_train2017.json (or instances_train.json), …, and
        train2017/, …, or images/; by default $ENCDEC_DATA/coco. The classes are the categories of
        "train", or else of `split`, in the order of their ids.
    """

    root: Path | None = None
    canvas: tuple[int, int] = (640, 640)
    truth: ClassVar[tuple[str, ...]] = ("boxes", "instances")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._categories().values())

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's id of each class, for its form of results."""
        return tuple(self._categories())

    def source(self, split: str) -> Annotated:
        return coco.coco(self.root or known("coco"), split, self.classes)

    def _categories(self) -> dict[int, str]:
        root = self.root or known("coco")
        try:
            file = coco.json_file(root, "train")
        except InputError:
            file = coco.json_file(root, self.split)
        return coco.categories(file)


@dataclasses.dataclass(frozen=True)
class TFDSDetection(Dataset):
    """Any TensorFlow data set with boxes, by name; downloaded and prepared if it must be.

    Attributes:
      name: as TFDS has it, "voc/2007" or "set/config:version".
      data_dir: TFDS's folder; by default its own, ~/tensorflow_datasets.
      image: key of the image; by default the only one there is.
      boxes: where the boxes are, "objects/bbox"; by default the only ones there are. Their classes
        are the class label beside them; without one, all are "object".
      names: of the classes, by id; by default TFDS's.
    """

    name: str = ""
    data_dir: Path | None = None
    image: str = ""
    boxes: str = ""
    names: tuple[str, ...] = ()
    canvas: tuple[int, int] = (512, 512)
    truth: ClassVar[tuple[str, ...]] = ("boxes",)

    @property
    def classes(self) -> tuple[str, ...]:
        if self.names:
            return self.names
        from encdec.data import boxed, builders  # TFDS takes half a second to import

        builder = builders.named(self.name, self.data_dir)
        return boxed.box_keys(builder, self.image, self.boxes)[1]

    def source(self, split: str) -> Source:
        from encdec.data import boxed, builders

        builder = builders.named(self.name, self.data_dir)
        keys, _ = boxed.box_keys(builder, self.image, self.boxes)
        return boxed.Boxed(builder, split, keys)


@dataclasses.dataclass(frozen=True)
class ShapesDetection(Shapes):
    """Drawn scenes with objects of many sizes, log-uniform, made on first use.

    Attributes:
      sides: range of an object's longer side in pixels. What is cut off or hidden until less than
        the lower end shows is crowd.
    """

    size: int = 256
    sides: tuple[int, int] = (8, 128)
    truth: ClassVar[tuple[str, ...]] = ("boxes", "instances")

    @property
    def classes(self) -> tuple[str, ...]:
        return synthetic.CLASSES[1:]

    def source(self, split: str) -> Source:
        from encdec.data import builders

        self.checked()
        low, high = self.sides
        if not 4 <= low <= high <= self.size:
            raise InputError(
                f"sides of objects want 4 <= low <= high <= the size, {self.size}; {low} and "
                f"{high} came; change --data.sides"
            )
        root = (self.root or cache_folder()).expanduser()
        counts = (self.train, self.val, self.test)
        builder = builders.shapes(
            root, size=self.size, counts=counts, seed=self.seed, sides=self.sides
        )
        return builders.Records(builder, split, builders.OBJECTS)


@functools.lru_cache
def _found(root: Path) -> tuple[str, ...]:
    """Names of the classes of "train", which is read for them, once."""
    names = voc.voc(root, "train").names
    if not names:
        raise InputError(
            f"Boxes with the names of their classes are wanted in the split train of {root}; there "
            "are none; name the classes with --data.names"
        )
    return names
