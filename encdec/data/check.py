"""Reads a whole data set and names every file that training or evaluation would stop at."""

import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from encdec.arrays import IGNORE
from encdec.data.datasets import Dataset
from encdec.data.pipeline import checked
from encdec.errors import InputError


def check(dataset: Dataset, splits: Sequence[str]) -> list[str]:
    """A line for each unreadable, mismatched, unpaired or out-of-range file; none if all is well.

    Each line begins with the path (or data set and record) and says what was wanted and what came.
    """
    faults = (fault for split in splits for fault in _faults(dataset, split))
    return list(dict.fromkeys(faults))  # splits of one folder share its unpaired files


def _faults(dataset: Dataset, split: str) -> Iterator[str]:
    try:
        source = dataset.source(split)
    except InputError as error:
        yield f"{split}: {error}"
        return
    try:
        classes = len(dataset.classes)
    except InputError:  # they are found in masks of which some cannot be read: named below
        classes = IGNORE
    yield from getattr(source, "unpaired", ())
    if not len(source):
        yield f"{split}: has no images"
    for i in tqdm(range(len(source)), desc=f"checking {split}", unit="image", file=sys.stderr):
        try:
            checked(source, i, classes, ("image", "label"))
        except InputError as error:
            yield str(error)
