"""A user's own folders: images with label masks, read at random.

Masks hold class ids. A palette PNG is read as its indices, never as its colours.
"""

import dataclasses
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from encdec.arrays import IGNORE
from encdec.data.images import SUFFIXES, read_ids, read_image
from encdec.errors import InputError

SPLITS = ("train", "val", "all")
"""Of a set whose files are not divided."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Files of one example."""

    image: Path
    mask: Path
    instances: Path | None = None


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A source over files.

    Attributes:
      pairs: files of each example, in order.
      unpaired: a line for each image without a mask and each mask without an image.
      ignore: an id of the masks that means "ignore", besides 255.
      binary: masks are black and white: any id above 0 is class 1.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...] = ()
    ignore: int = IGNORE
    binary: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Decodes example i; raises InputError with the path of a file that cannot be used."""
        pair = self.pairs[i]
        image, ids = read_image(pair.image), read_ids(pair.mask)
        if self.binary:
            ids = np.minimum(ids, 1)
        example = {"image": image, "label": as_label(ids, self.ignore, str(pair.mask))}
        if pair.instances is not None:
            instances = read_ids(pair.instances)
            example["instances"] = np.where(instances == IGNORE, 0, instances)
        return example

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return str(self.pairs[i].mask)


def camvid(root: Path, split: str) -> Pairs:
    """The SegNet form of CamVid: `<split>/`, `<split>annot/`, and `<split>.txt` if there is one.

    The list holds an image and a mask a line, with a prefix of the authors' machine: only base
    names count. Label 11, unlabelled, is ignored.
    """
    images, masks, names = root / split, root / f"{split}annot", root / f"{split}.txt"
    wanted = f"CamVid wants {split}/ and {split}annot/ in its folder"
    if not images.is_dir() or not masks.is_dir():
        raise InputError(f"{wanted}; {came(root)}; {REMEDY}")
    if not names.is_file():
        return match(images, masks, ignore=11)
    lines = [line.split() for line in listed(names, prefixed=True)]
    if bad := [line for line in lines if len(line) != 2]:
        raise InputError(f"{names} wants an image and a mask a line; {' '.join(bad[0])!r} is not")
    return _listed([Pair(images / Path(a).name, masks / Path(b).name) for a, b in lines], ignore=11)


def voc(root: Path, split: str, without: frozenset[str] = frozenset()) -> Pairs:
    """Pascal VOC: ids in SegmentationClass/, and in SegmentationObject/ where that has the file.

    Images whose names are in `without` are left out of the split.
    """
    pairs = []
    for name in voc_names(root, "Segmentation", split, "SegmentationClass"):
        if name in without:
            continue
        instances = root / "SegmentationObject" / f"{name}.png"
        pairs.append(
            Pair(
                root / "JPEGImages" / f"{name}.jpg",
                root / "SegmentationClass" / f"{name}.png",
                instances if there(instances) else None,
            )
        )
    return _listed(pairs)


def sbd(root: Path) -> Pairs:
    """The 8,498 images that SBD trains on, and FCN with it: `train.txt`, `img/`, `cls/*.mat`.

    `root` is the folder `dataset` of the release (Hariharan et al. 2011).
    """
    names = sorted(_sbd_names(root))
    return _listed([Pair(root / "img" / f"{n}.jpg", root / "cls" / f"{n}.mat") for n in names])


def seg11valid(root: Path, sbd_root: Path) -> Pairs:
    """What FCN is validated on: "val" of VOC without the images of `sbd`; 736 of VOC 2011."""
    return voc(root, "val", without=_sbd_names(sbd_root))


def voc_names(root: Path, kind: str, split: str, truth: str) -> list[str]:
    """The lines of VOC's `ImageSets/<kind>/<split>.txt`.

    Raises:
      InputError: there is no such file; `truth` is the folder that it is with.
    """
    names = root / "ImageSets" / kind / f"{split}.txt"
    if not names.is_file():
        others = sorted(p.stem for p in names.parent.glob("*.txt"))
        found = f"there are the splits {', '.join(others)}" if others else came(root)
        raise InputError(
            f"VOC wants JPEGImages/, {truth}/ and ImageSets/{kind}/{split}.txt in its folder; "
            f"{found}; {REMEDY}"
        )
    return listed(names)


def _sbd_names(root: Path) -> frozenset[str]:
    names = root / "train.txt"
    if not names.is_file():
        raise InputError(
            f"SBD wants img/, cls/ and train.txt in its folder (dataset/ of the release); "
            f"{came(root)}; name the folder with --data.sbd DIR"
        )
    return frozenset(listed(names))


def pairs(root: Path, split: str, *, val: float, binary: bool) -> Pairs:
    """`images/` and `masks/`, matched by file name without suffix.

    Either `<root>/<split>/images` and `<root>/<split>/masks`, or `<root>/images` and
    `<root>/masks`: then a share `val` of the pairs, drawn by a hash of the name, is the split
    "val", the rest is "train", and "all" is all of them.
    """
    if (root / split / "images").is_dir() and (root / split / "masks").is_dir():
        return match(root / split / "images", root / split / "masks", binary=binary)
    flat = (root / "images").is_dir() and (root / "masks").is_dir()
    if not flat or split not in SPLITS:
        also = f", whose splits are {', '.join(SPLITS)}" if flat else ""
        raise InputError(
            f"A folder wants {split}/images/ and {split}/masks/, or images/ and masks/{also}; "
            f"{came(root)}; {REMEDY}"
        )
    found = match(root / "images", root / "masks", binary=binary)
    return dataclasses.replace(found, pairs=divided(found.pairs, split, val))


def divided(pairs: tuple[Pair, ...], split: str, val: float) -> tuple[Pair, ...]:
    """Those of one of `SPLITS`: a share `val`, drawn by a hash of the image's name, is "val"."""
    if split == "all":
        return pairs
    by_hash = sorted(pairs, key=lambda pair: zlib.crc32(pair.image.stem.encode()))
    held_out = set(by_hash[: max(1, round(val * len(by_hash)))])
    return tuple(pair for pair in pairs if (pair in held_out) == (split == "val"))


REMEDY = "name the folder with --data.root DIR (or, for a known set, $ENCDEC_DATA)"


def came(root: Path) -> str:
    """What is there instead of the wanted folder."""
    if not root.is_dir():
        return f"{root} is no folder"
    inside = [p.name + "/" * p.is_dir() for p in _inside(root)]
    more = f" and {len(inside) - 8} more" if len(inside) > 8 else ""
    return f"{root} holds {', '.join(inside[:8]) or 'nothing'}{more}"


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}; {REMEDY}") from error


def listed(file: Path, prefixed: bool = False) -> list[str]:
    """The lines of a list of files, each a name; if `prefixed`, with a folder that does not count.

    Raises:
      InputError: the file is no text, or a name leads out of the data set's folder.
    """
    try:
        names = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: a list of names is wanted; {error} came; replace it") from error
    for name in () if prefixed else names:
        check_below(name, str(file))
    return names


def check_below(name: str, listed: str) -> None:
    """Raises InputError where the name of a file, as `listed`, leads out of the data's folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"{listed}: names of files in the data set's folder are wanted; {name} came, which "
            "leads out of it; correct the name"
        )


def there(path: Path) -> bool:
    """Whether it is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero in it
        return False


def match(images: Path, masks: Path, *, ignore: int = IGNORE, binary: bool = False) -> Pairs:
    """Pairs the files of two folders by name without suffix."""
    unpaired: list[str] = []
    found = [_by_stem(folder, unpaired) for folder in (images, masks)]
    for here, there, what in ((0, 1, masks), (1, 0, images)):
        for stem in sorted(set(found[here]) - set(found[there])):
            unpaired.append(f"{found[here][stem]}: no {stem}.* in {what}")
    stems = sorted(set(found[0]) & set(found[1]))
    both = tuple(Pair(found[0][stem], found[1][stem]) for stem in stems)
    return Pairs(both, tuple(unpaired), ignore, binary)


def _by_stem(folder: Path, faults: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _inside(folder):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            faults.append(f"{path}: {files[path.stem].name} has the same name but for the suffix")
        files.setdefault(path.stem, path)
    return files


def _listed(listed: Iterable[Pair], ignore: int = IGNORE) -> Pairs:
    """Keeps the pairs whose files are there, names the others."""
    kept, unpaired = [], []
    for pair in listed:
        missing = [path for path in (pair.image, pair.mask) if not there(path)]
        unpaired += [f"{path}: listed, but there is no such file" for path in missing]
        if not missing:
            kept.append(pair)
    return Pairs(tuple(kept), tuple(unpaired), ignore)


def as_label(ids: Int32[np.ndarray, "h w"], ignore: int, name: str) -> UInt8[np.ndarray, "h w"]:
    """Ids as uint8, with `ignore` turned to 255."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= IGNORE:
        odd = ids.min() if ids.min() < 0 else ids.max()
        raise InputError(f"{name}: class ids from 0 to 254 (255 = ignore) are wanted, {odd} came")
    return np.where(ids == ignore, IGNORE, ids).astype(np.uint8)
