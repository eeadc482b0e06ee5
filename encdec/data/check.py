"""Reads a whole data set and names every file that training or evaluation would stop at."""

from collections.abc import Iterator, Sequence

from encdec.arrays import IGNORE
from encdec.data.datasets import Dataset
from encdec.data.pipeline import checked
from encdec.errors import InputError, visible
from encdec.progress import Bar


def check(dataset: Dataset, splits: Sequence[str]) -> list[str]:
    """A line for each unreadable, mismatched, unpaired or out-of-range file; none if all is well.

    And for each box without area, at which training does not stop.

    Each line begins with the path (or data set and record) and says what was wanted and what came.
    """
    faults = (fault for split in splits for fault in _faults(dataset, split))
    # Splits of one folder share its unpaired files; names of files need not be one line.
    return list(dict.fromkeys(map(visible, faults)))


def _faults(dataset: Dataset, split: str) -> Iterator[str]:
    try:
        source = dataset.source(split)
    except InputError as error:
        yield f"{split}: {error}"
        return
    try:
        classes, unnamed = len(dataset.classes), None
    except InputError as error:  # they are found in masks; if some cannot be read: named below
        classes, unnamed = IGNORE, str(error)
    yield from getattr(source, "unpaired", ())
    keys = ("image", *dataset.truth)
    if not len(source):
        yield f"{split}: has no images"
    for i in Bar(range(len(source)), f"checking {split}"):
        try:
            checked(source, i, classes, keys, dataset.max_boxes)
        except InputError as error:
            unnamed = None
            yield str(error)
    if unnamed and split == "train":
        yield f"train: {unnamed}"
    yield from getattr(source, "dropped", ())  # some are found in reading
