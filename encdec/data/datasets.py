"""What a data set is: where its files are, its classes, the size at which a net sees it."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from encdec.arrays import IGNORE
from encdec.data import folders, synthetic
from encdec.data.border import Border
from encdec.data.fit import MAX_BOXES, Example
from encdec.errors import InputError

CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


@runtime_checkable
class Source(Protocol):
    """Examples by number.

    What else a source may have: `name(i)` says where example i comes from; `read(i, keys)` makes
    just these arrays of it; `unpaired` are lines on files without a partner, at which training
    stops; `dropped` are lines on boxes that no example holds, since they have no area.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example: ...


def cache_folder() -> Path:
    """For what can be made again: $ENCDEC_CACHE, or else ~/.cache/encdec."""
    return Path(os.environ.get("ENCDEC_CACHE") or Path.home() / ".cache" / "encdec").expanduser()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What every data set has.

    Attributes:
      split: what evaluation reads; training always reads "train".
      shrink: the net sees images reduced by this factor, and is scored at full size.
      side: the net sees images resized until their shorter side has the first number of pixels, or
        the longer one the second, and is scored at full size; 800 and 1333 in FPN §5. Not for
        boxes with masks.
      border: U-Net's weight map, from the instances: training batches then have "weight". Made
        once an image and kept in memory, 4 bytes a pixel.
      max_boxes: most boxes of an image; batches with boxes are padded to it.
      faults: at a file that cannot be used "stop"; or "skip" it, which is said and listed in the
        run's folder: training takes another example in its place, evaluation leaves it out.
      max_faults: most files that are skipped; at one more training stops.
    """

    split: str = "val"
    shrink: int = 1
    side: tuple[int, int] | None = None
    border: Border | None = None
    max_boxes: int = MAX_BOXES
    faults: Literal["stop", "skip"] = "stop"
    max_faults: int = 10
    truth: ClassVar[tuple[str, ...]] = ("label",)
    """Keys of an example, besides the image, that it is for."""

    def __post_init__(self):
        if self.max_faults < 0:
            raise InputError(
                f"max_faults of a data set is 0 or more; {self.max_faults} came; "
                "change --data.max-faults"
            )
        if self.max_boxes < 1:
            raise InputError(
                f"max_boxes of a data set is 1 or more; {self.max_boxes} came; "
                "change --data.max-boxes"
            )
        if self.shrink < 1 or min(self.canvas) < 1:
            raise InputError(
                f"shrink and canvas of a data set are 1 or more; {self.shrink} and {self.canvas} "
                "came; change --data.shrink or --data.canvas"
            )
        if self.side is not None and (self.shrink > 1 or not 1 <= self.side[0] <= self.side[1]):
            raise InputError(
                f"side of a data set wants 1 <= shorter <= longer, and shrink 1; {self.side} and "
                f"{self.shrink} came; change --data.side or --data.shrink"
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """Rows and columns of a training example after `shrink` or `side`; mostly a field.

        Smaller ones are padded, larger ones cropped at random.
        """
        raise NotImplementedError

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id, without the ignore label; background is no class of boxes."""
        raise NotImplementedError

    def source(self, split: str) -> Source:
        """The examples of a split."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Shapes(Dataset):
    """Drawn scenes with masks, instances and boxes, made on first use.

    Attributes:
      root: folder to keep them in; by default $ENCDEC_CACHE, or else ~/.cache/encdec.
      size: rows and columns of a scene.
      train, val, test: number of scenes.
      seed: of the drawing.
    """

    root: Path | None = None
    size: int = 128
    train: int = 1200
    val: int = 200
    test: int = 200
    seed: int = 0

    @property
    def canvas(self) -> tuple[int, int]:
        return (-(-self.size // self.shrink),) * 2

    @property
    def classes(self) -> tuple[str, ...]:
        return synthetic.CLASSES

    def source(self, split: str) -> Source:
        from encdec.data import builders  # TFDS takes half a second to import

        self.checked()
        counts = (self.train, self.val, self.test)
        root = (self.root or cache_folder()).expanduser()
        builder = builders.shapes(root, size=self.size, counts=counts, seed=self.seed)
        return builders.Records(builder, split)

    def checked(self) -> None:
        """Raises InputError where there is nothing to draw."""
        if self.size < 16 or min(self.train, self.val, self.test) < 1:
            raise InputError(
                f"shapes want a size of 16 or more and 1 or more scenes a split; size {self.size}, "
                f"{self.train}, {self.val}, {self.test} scenes came; change --data.size, "
                "--data.train, --data.val, --data.test"
            )


@dataclasses.dataclass(frozen=True)
class CamVid(Dataset):
    """Street scenes in the SegNet authors' form: 367 of 360x480 pixels to train on, 11 classes.

    Attributes:
      root: folder with train/, trainannot/, val/, …; by default $ENCDEC_DATA/CamVid.
      canvas: see `Dataset`; likewise below.
    """

    root: Path | None = None
    shrink: int = dataclasses.field(default=2, kw_only=True)
    canvas: tuple[int, int] = (180, 240)

    @property
    def classes(self) -> tuple[str, ...]:
        return CAMVID

    def source(self, split: str) -> Source:
        return folders.camvid(self.root or known("CamVid"), split)


@dataclasses.dataclass(frozen=True)
class VOCSegmentation(Dataset):
    """Pascal VOC segmentation: 20 classes and background.

    Attributes:
      root: folder with JPEGImages/, SegmentationClass/ and ImageSets/; by default
        $ENCDEC_DATA/VOC2012.
      sbd: folder of SBD (Hariharan et al. 2011) with img/, cls/ and train.txt. With it, as in FCN,
        "train" is SBD's and "val" leaves SBD's training images out; with VOC 2011 as root that is
        seg11valid, 736 images.
    """

    root: Path | None = None
    sbd: Path | None = None
    canvas: tuple[int, int] = (512, 512)

    @property
    def classes(self) -> tuple[str, ...]:
        return VOC

    def source(self, split: str) -> Source:
        if self.sbd is not None and split == "train":
            return folders.sbd(self.sbd)
        root = self.root or known("VOC2012")
        if self.sbd is not None and split == "val":
            return folders.seg11valid(root, self.sbd)
        return folders.voc(root, split)


@dataclasses.dataclass(frozen=True)
class Folder(Dataset):
    """Your own images and masks.

    Attributes:
      root: folder with <split>/images and <split>/masks, or images and masks.
      names: class names by id; by default the ids found in the masks of "train".
      binary: masks are black and white: any id above 0 is class 1.
      share: part of the pairs that is held out as "val" where the folder has no splits.
    """

    root: Path | None = None
    names: tuple[str, ...] = ()
    binary: bool = False
    share: float = 0.2
    canvas: tuple[int, int] = (256, 256)

    @property
    def classes(self) -> tuple[str, ...]:
        if self.binary:
            return self.names or ("background", "foreground")
        return self.names or _found(self)

    def source(self, split: str) -> Source:
        if self.root is None:
            raise InputError(f"A folder of images and masks is wanted; {folders.REMEDY}")
        return folders.pairs(self.root, split, val=self.share, binary=self.binary)


@dataclasses.dataclass(frozen=True)
class TFDS(Dataset):
    """Any TensorFlow data set with a mask, by name; downloaded and prepared if it must be.

    Attributes:
      name: as TFDS has it, "oxford_iiit_pet" or "set/config:version".
      data_dir: TFDS's folder; by default its own, ~/tensorflow_datasets.
      image, mask: keys of the features; by default the only ones that can be meant.
      offset: id of the first class in the masks (oxford_iiit_pet: 1); ids below it are ignored.
      names: class names by id; by default the ids found in the masks of "train".
    """

    name: str = ""
    data_dir: Path | None = None
    image: str = ""
    mask: str = ""
    offset: int = 0
    names: tuple[str, ...] = ()
    canvas: tuple[int, int] = (256, 256)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names or _found(self)

    def source(self, split: str) -> Source:
        from encdec.data import builders

        builder = builders.named(self.name, self.data_dir)
        image, mask = builders.keys(builder, self.image, self.mask)
        return builders.Records(builder, split, {"image": image, "label": mask}, self.offset)


def known(folder: str) -> Path:
    """The folder of a known set under $ENCDEC_DATA."""
    if not (data := os.environ.get("ENCDEC_DATA")):
        raise InputError(f"The folder of {folder} is wanted and none came; {folders.REMEDY}")
    return Path(data) / folder


@functools.lru_cache
def _found(dataset: Dataset) -> tuple[str, ...]:
    """Names for the ids up to the largest in the masks of "train". Reads every mask, once."""
    source, largest = dataset.source("train"), 0
    for i in range(len(source)):
        try:
            label = source[i]["label"]
        except InputError:
            if dataset.faults == "stop":
                raise
            continue  # said when it is read for training
        largest = max(largest, int(label[label != IGNORE].max(initial=0)))
    if largest == 0:
        raise InputError(
            "Masks with class ids 0, 1, … are wanted; those of train hold only 0 and 255 "
            "(= ignore); if they are black and white, say --data.binary"
        )
    return tuple(f"class {i}" for i in range(largest + 1))
