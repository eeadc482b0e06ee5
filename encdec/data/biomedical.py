"""Biomedical sets as they are published: slices of electron microscopy, nuclei, retinal vessels."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Shaped
from scipy import ndimage

from encdec.data.datasets import Dataset, known
from encdec.data.folders import (
    REMEDY,
    SPLITS,
    Pair,
    Pairs,
    came,
    divided,
    match,
)
from encdec.data.images import count_pages, decode_ids, decode_image, read_ids, read_image
from encdec.errors import InputError


@dataclasses.dataclass(frozen=True)
class ISBI(Dataset):
    """ISBI 2012, U-Net's first benchmark: EM slices of 512x512 pixels; instances are cells.

    Attributes:
      root: folder with train-volume.tif and train-labels.tif; by default
        $ENCDEC_DATA/isbi2012_em.
      validate: slices [first, last) that are "val", from 0; the others are "train". One block,
        since neighbouring slices look alike.
      canvas: see `Dataset`; likewise below.
    """

    root: Path | None = None
    validate: tuple[int, int] = (20, 24)
    canvas: tuple[int, int] = (512, 512)
    classes = ("membrane", "cell")

    def source(self, split: str) -> "Stack":
        return isbi(self.root or known("isbi2012_em"), split, validate=self.validate)


@dataclasses.dataclass(frozen=True)
class DSB2018(Dataset):
    """Data Science Bowl 2018: cell nuclei, each an instance.

    Attributes:
      root: folder with <split>/images and <split>/masks of ids, or, as on Kaggle, with
        <id>/images/<id>.png and <id>/masks, a file a nucleus; by default
        $ENCDEC_DATA/dsb2018_fluo.
      cut: pixels of a nucleus beside another one are background in the label, not in the
        instances: the separation border of U-Net §3.
      share: part of Kaggle's images that is held out as "val".
    """

    root: Path | None = None
    cut: bool = True
    share: float = 0.2
    canvas: tuple[int, int] = (256, 256)
    classes = ("background", "nucleus")

    def source(self, split: str) -> "Nuclei":
        return dsb2018(self.root or known("dsb2018_fluo"), split, val=self.share, cut=self.cut)


@dataclasses.dataclass(frozen=True)
class ChaseDB1(Dataset):
    """CHASE_DB1: retinal vessels of both eyes of 14 children, 960x999 pixels.

    Attributes:
      root: folder with Image_01L.jpg, Image_01L_1stHO.png, …; by default $ENCDEC_DATA/CHASEDB1.
      observer: whose drawing is the label; the first's is the ground truth.
      validate: children that are "val"; the others are "train".
    """

    root: Path | None = None
    observer: Literal[1, 2] = 1
    validate: tuple[int, ...] = (9, 10)
    canvas: tuple[int, int] = (960, 999)
    classes = ("background", "vessel")

    def source(self, split: str) -> Pairs:
        root = self.root or known("CHASEDB1")
        return chase_db1(root, split, validate=self.validate, observer=self.observer)


@dataclasses.dataclass(frozen=True)
class Stack:
    """A source over two TIFF stacks; each page is decoded once, when it is first wanted.

    Attributes:
      volume: the images, a page each.
      labels: of as many pages, 0 membrane, 255 inside of a cell.
      pages: numbers, from 0, of the pages that are examples.
      unpaired: a line where the stacks differ in length.
    """

    volume: Path
    labels: Path
    pages: tuple[int, ...]
    unpaired: tuple[str, ...] = ()
    _decoded: dict[int, dict] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Example i; its instances are the 4-connected parts of the cells' inside.

        Raises InputError with the path and number of a page that cannot be used.
        """
        page = self.pages[i]
        if page not in self._decoded:
            self._decoded[page] = self._decode(page)
        return {key: array.copy() for key, array in self._decoded[page].items()}

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return f"{self.labels} page {self.pages[i]}"

    def _decode(self, page: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        image = decode_image(self.volume, f"{self.volume} page {page}", page)
        ids = decode_ids(self.labels, f"{self.labels} page {page}", page)
        other = ids[(ids != 0) & (ids != 255)]
        if other.size:
            raise InputError(
                f"{self.labels} page {page}: 0 (membrane) and 255 (cell) are wanted; {other[0]} "
                "came; write the stack with these two values"
            )
        cells, _ = ndimage.label(ids)
        return {"image": image, "label": (ids > 0).astype(np.uint8), "instances": cells}


def isbi(root: Path, split: str, *, validate: tuple[int, int]) -> Stack:
    """ISBI 2012: `train-volume.tif` and `train-labels.tif`, a slice a page.

    The slices [first, last) = `validate` are the split "val", the others "train".
    """
    volume, labels = root / "train-volume.tif", root / "train-labels.tif"
    if not (volume.is_file() and labels.is_file()):
        wanted = "ISBI wants train-volume.tif and train-labels.tif in its folder"
        raise InputError(f"{wanted}; {came(root)}; {REMEDY}")
    _known_split(split)
    slices, masks = count_pages(volume), count_pages(labels)
    first, last = validate
    if split != "all" and not 0 <= first < last <= max(slices, masks):
        raise InputError(
            f"ISBI wants validation slices 0 <= first < last <= {slices}, the pages of {volume}; "
            f"{first} and {last} came; change --data.validate"
        )
    unpaired = f"{labels}: as many pages as {volume} are wanted, {slices}; it has {masks}"
    pages = range(min(slices, masks))
    chosen = (p for p in pages if split == "all" or (first <= p < last) == (split == "val"))
    return Stack(volume, labels, tuple(chosen), (unpaired,) * (slices != masks))


@dataclasses.dataclass(frozen=True)
class Nuclei:
    """A source over nuclei.

    Attributes:
      pairs: files of each example; a mask is a file of ids or a folder with a file a nucleus.
      unpaired: as in `Pairs`.
      cut: see `separation`.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...] = ()
    cut: bool = True

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Decodes example i; raises InputError with the path of a file that cannot be used."""
        pair = self.pairs[i]
        image = read_image(pair.image)
        size = image.shape[:2]
        ids = read_nuclei(pair.mask, size) if pair.mask.is_dir() else read_ids(pair.mask)
        nucleus = (ids > 0) & ~separation(ids) if self.cut else ids > 0
        return {"image": image, "label": nucleus.astype(np.uint8), "instances": ids}

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return str(self.pairs[i].mask)


def separation(ids: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of an instance with a 4-neighbour in another one.

    Without them touching instances are apart in a mask: the border that U-Net §3 puts between
    touching cells.
    """
    border = np.zeros(ids.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = (ids[a] != ids[b]) & (ids[a] > 0) & (ids[b] > 0)
        border[a] |= apart
        border[b] |= apart
    return border


def read_nuclei(folder: Path, size: tuple[int, ...]) -> Int32[np.ndarray, "h w"]:
    """Ids 1, 2, … from one black-and-white PNG a nucleus, in the order of their names.

    A pixel in two masks belongs to the first.
    """
    ids = np.zeros(size, np.int32)
    for number, path in enumerate(sorted(folder.glob("*.png")), 1):
        mask = read_ids(path)
        if mask.shape != size:
            raise InputError(
                f"{path}: a mask of its image's size is wanted, {'x'.join(map(str, size))} pixels; "
                f"{'x'.join(map(str, mask.shape))} came; replace it"
            )
        ids[(mask > 0) & (ids == 0)] = number
    return ids


def dsb2018(root: Path, split: str, *, val: float, cut: bool) -> Nuclei:
    """Data Science Bowl 2018: `<split>/images/*.png` and `<split>/masks/*.png`, which hold ids.

    Or as on Kaggle, `<id>/images/<id>.png` and `<id>/masks/*.png`, one file a nucleus: then a share
    `val`, drawn by a hash of the id, is the split "val".
    """
    if (root / split / "images").is_dir() and (root / split / "masks").is_dir():
        found = match(root / split / "images", root / split / "masks")
        return Nuclei(found.pairs, found.unpaired, cut)
    folders = [p for p in sorted(root.glob("*")) if p.is_dir() and not p.name.startswith(".")]
    listed = [Pair(p / "images" / f"{p.name}.png", p / "masks") for p in folders]
    if not any(pair.image.is_file() for pair in listed):
        raise InputError(
            f"DSB 2018 wants {split}/images/ and {split}/masks/ in its folder, or ID/images/ID.png "
            f"and ID/masks/ for each image; {came(root)}; {REMEDY}"
        )
    _known_split(split)
    kept, unpaired = [], []
    for pair in listed:
        if not pair.image.is_file():
            unpaired.append(f"{pair.image}: {pair.image.parents[1]} is there, but no such file")
        elif not any(pair.mask.glob("*.png")):
            unpaired.append(f"{pair.image}: no *.png in {pair.mask}")
        else:
            kept.append(pair)
    return Nuclei(divided(tuple(kept), split, val), tuple(unpaired), cut)


def chase_db1(
    root: Path, split: str, *, validate: tuple[int, ...], observer: Literal[1, 2]
) -> Pairs:
    """CHASE_DB1: `Image_01L.jpg`, child 1's left eye, and vessels by two observers.

    `Image_01L_1stHO.png` is the first observer's. The children `validate` are the split "val", the
    others "train": both eyes of a child are on one side.
    """
    eye, by = "Image_[0-9][0-9][LR]", {1: "_1stHO", 2: "_2ndHO"}[observer]
    images = {p.stem: p for p in sorted(root.glob(f"{eye}.jpg"))}
    masks = {p.stem.removesuffix(by): p for p in sorted(root.glob(f"{eye}{by}.png"))}
    if not images or not masks:
        wanted = f"CHASE_DB1 wants Image_01L.jpg, Image_01L{by}.png and so on in its folder"
        raise InputError(f"{wanted}; {came(root)}; {REMEDY}")
    _known_split(split)
    unpaired = [f"{images[s]}: no {s}{by}.png beside it" for s in images if s not in masks]
    unpaired += [f"{masks[s]}: no {s}.jpg beside it" for s in masks if s not in images]
    chosen = (
        Pair(images[stem], masks[stem])
        for stem in images
        if stem in masks and (split == "all" or (int(stem[6:8]) in validate) == (split == "val"))
    )
    return Pairs(tuple(chosen), tuple(unpaired), binary=True)


def _known_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(
            f"The splits of this set are {', '.join(SPLITS)}; {split!r} came; change --data.split"
        )
