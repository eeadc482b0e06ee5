"""The Cell Tracking Challenge's sets of 2D sequences, as they are published."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Shaped
from scipy import ndimage

from encdec.arrays import IGNORE
from encdec.data.biomedical import separation
from encdec.data.datasets import Dataset, known
from encdec.data.folders import REMEDY, SPLITS, came, there
from encdec.data.images import read_ids, read_image
from encdec.errors import InputError


@dataclasses.dataclass(frozen=True)
class CellTracking(Dataset):
    """Frames whose cells are drawn, each cell an instance; in some frames only some of them are.

    The challenge draws few cells with care (SEG) and marks all of them roughly (TRA): where a cell
    is marked but not drawn, nobody knows how far it goes. Nor are cells annotated that lie in the
    border of the image alone. Both count as ignored, unless a drawn cell is there.

    Attributes:
      root: folder with 01/t000.tif, …, 01_GT/SEG/man_seg000.tif, …, 01_GT/TRA/man_track000.tif, …,
        02/, 02_GT/; by default `name` below $ENCDEC_DATA. Without TRA all cells are taken as drawn.
      name: the set's.
      validate: sequences that are "val"; the others are "train".
      cut: as in `DSB2018`.
      reach: background this many pixels around the mark of a cell that is not drawn is ignored; a
        choice of ours.
      margin: background this many pixels from the image's edge is ignored: the border outside the
        challenge's field of interest, 50 in both sets of U-Net §4.
      canvas: see `Dataset`.
    """

    root: Path | None = None
    name: str = "PhC-C2DH-U373"
    validate: tuple[str, ...] = ("02",)
    cut: bool = True
    reach: int = 50
    margin: int = 50
    canvas: tuple[int, int] = (520, 696)
    classes = ("background", "cell")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.reach, self.margin) < 0:
            raise InputError(
                f"reach and margin of cells are 0 or more pixels; {self.reach} and {self.margin} "
                "came; change --data.reach or --data.margin"
            )

    def source(self, split: str) -> "Frames":
        root = self.root or known(self.name)
        found = frames(root, split, self.validate)
        return dataclasses.replace(found, cut=self.cut, reach=self.reach, margin=self.margin)


@dataclasses.dataclass(frozen=True)
class Frame:
    """Files of one example; `marks` only where the sequence has them."""

    image: Path
    cells: Path
    marks: Path | None


@dataclasses.dataclass(frozen=True)
class Frames:
    """A source over drawn frames.

    Attributes:
      frames: files of each example, by sequence and time.
      unpaired: a line for each file whose partner is not there.
      cut, reach, margin: see `CellTracking`.
    """

    frames: tuple[Frame, ...]
    unpaired: tuple[str, ...] = ()
    cut: bool = True
    reach: int = 50
    margin: int = 50

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Decodes example i; raises InputError with the path of a file that cannot be used."""
        frame = self.frames[i]
        image, cells = read_image(frame.image), read_ids(frame.cells)
        label = ((cells > 0) & ~separation(cells) if self.cut else cells > 0).astype(np.uint8)
        unsure = np.ones(cells.shape, bool)
        unsure[self.margin : -self.margin or None, self.margin : -self.margin or None] = False
        if frame.marks is not None:
            marks = read_ids(frame.marks)
            if marks.shape != cells.shape:
                raise InputError(
                    f"{frame.marks}: marks of their cells' size are wanted, "
                    f"{'x'.join(map(str, cells.shape))} pixels; "
                    f"{'x'.join(map(str, marks.shape))} came; replace it"
                )
            unsure |= near(undrawn(marks, cells), self.reach)
        label[unsure & (cells == 0)] = IGNORE
        return {"image": image, "label": label, "instances": cells}

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return str(self.frames[i].cells)


def undrawn(
    marks: Int32[np.ndarray, "h w"], cells: Int32[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels of the marks that no drawn cell touches."""
    drawn = np.unique(marks[cells > 0])
    return (marks > 0) & ~np.isin(marks, drawn)


def near(pixels: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Where one of the pixels is at most `reach` away."""
    if not pixels.any():
        return pixels
    return ndimage.distance_transform_edt(~pixels) <= reach


def frames(root: Path, split: str, validate: tuple[str, ...]) -> Frames:
    """The drawn frames of the sequences of a split: `01/t000.tif` of `01_GT/SEG/man_seg000.tif`.

    The sequences in `validate` are the split "val", the others "train".
    """
    truths = sorted(root.glob("[0-9][0-9]_GT/SEG"))
    if not truths:
        raise InputError(
            "A set of the Cell Tracking Challenge wants 01/t000.tif, 01_GT/SEG/man_seg000.tif and "
            f"so on in its folder; {came(root)}; {REMEDY}"
        )
    if split not in SPLITS:
        raise InputError(
            f"The splits of this set are {', '.join(SPLITS)}; {split!r} came; change --data.split"
        )
    sequences = [truth.parent.name.removesuffix("_GT") for truth in truths]
    if split != "all" and (odd := sorted(set(validate) - set(sequences))):
        raise InputError(
            f"The sequences of {root} are {', '.join(sequences)}; {odd[0]} came; change "
            "--data.validate"
        )
    kept, unpaired = [], []
    for sequence, truth in zip(sequences, truths, strict=True):
        if split != "all" and (sequence in validate) != (split == "val"):
            continue
        marked = truth.with_name("TRA")
        for cells in sorted(truth.glob("man_seg*.tif")):
            if not (number := re.fullmatch(r"man_seg(\d+)", cells.stem)):
                unpaired.append(f"{cells}: a frame of two dimensions is wanted, man_seg000.tif")
                continue
            image = root / sequence / f"t{number[1]}.tif"
            marks = marked / f"man_track{number[1]}.tif" if marked.is_dir() else None
            missing = [path for path in (image, marks) if path is not None and not there(path)]
            unpaired += [f"{cells}: no {path.relative_to(root)} for it" for path in missing]
            if not missing:
                kept.append(Frame(image, cells, marks))
    return Frames(tuple(kept), tuple(unpaired))
