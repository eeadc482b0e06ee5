"""The mean IoU that a coarse prediction can reach: the table of FCN's Appendix A (2015, v2).

    python experiments/fcn_upper_bound.py [shapes|camvid|voc|…] [--data.split train]

The true labels of a split, made coarse by a factor, brought back to their size and scored against
themselves: "approximate upper bounds". Nothing is trained. The paper does not say how it makes
them coarse, so there are three ways. A cell is a square of `factor` x `factor` pixels, counted from
the upper left, cut off at the right and the bottom; ignored pixels count nowhere.

    majority    every pixel of a cell has the class that most of its labelled pixels have, the lower
                id of two as frequent: the most pixels that a map constant on cells gets right
    centre      every pixel has the class of the one at row and column factor // 2 of the cell, or
                of its last: nearest neighbour, as masks are resized; if ignored, the majority's
    bilinear    the class of the largest share, the shares of the classes among a cell's labelled
                pixels being upsampled bilinearly, as FCN's last layer does with scores

None is a bound in the strict sense: scores chosen for mean IoU could reach more. The paper's
figures, on a subset of PASCAL VOC 2011 val, stand beside the majority's.
"""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from encdec import cli, flags, metrics
from encdec.arrays import IGNORE
from encdec.data.datasets import Dataset
from encdec.data.pipeline import checked, opened
from encdec.errors import InputError
from encdec.grid import Cell, Ordering, finish, judged, measured
from encdec.records import Record
from encdec.sections import named

PAPER = {128: 50.9, 64: 73.3, 32: 86.1, 16: 92.8, 8: 96.4, 4: 98.5}
WAYS = ("majority", "centre", "bilinear")


@dataclasses.dataclass(frozen=True)
class UpperBound:
    """Labels made coarse.

    Attributes:
      data: any of labels; `split` says which are read, at full size whatever `shrink` is.
      factors: pixels along a side of a cell.
      workdir: folder of the record.
      record: file of the table and the orderings; by default in workdir.
    """

    data: Dataset
    factors: tuple[int, ...] = tuple(PAPER)
    workdir: Path = Path("runs/fcn_upper_bound")
    record: Path | None = None

    def __post_init__(self) -> None:
        if min(self.factors, default=0) < 1:
            raise InputError(f"--factors wants one or more, of 1 or more; got {self.factors}")


DEFAULTS = {
    name: UpperBound(kind(), workdir=Path(f"runs/fcn_upper_bound_{name}"))
    for name, kind in cli.DATASETS.items()
    if kind.truth == ("label",)
}


def coarse(label: np.ndarray, factor: int, classes: int) -> dict[str, np.ndarray]:
    """Labels uint8 (h, w), 255 ignored -> by way a label map of the same size, without 255."""
    h, w = label.shape
    rows, columns = -(-h // factor), -(-w // factor)
    border = [(0, rows * factor - h), (0, columns * factor - w)]
    blocks = np.pad(label, border, constant_values=IGNORE)
    blocks = blocks.reshape(rows, factor, columns, factor)
    counts = np.stack([(blocks == k).sum((1, 3)) for k in range(classes)])
    majority = counts.argmax(0)
    places = (np.minimum(np.arange(factor // 2, n + factor // 2, factor), n - 1) for n in (h, w))
    centre = label[np.ix_(*places)]
    centre = np.where(centre == IGNORE, majority, centre)
    shares = (counts / np.maximum(counts.sum(0), 1)).astype(np.float32)
    size = (columns * factor, rows * factor)
    smooth = [Image.fromarray(share).resize(size, Image.Resampling.BILINEAR) for share in shares]
    whole = {
        "majority": majority.repeat(factor, 0).repeat(factor, 1),
        "centre": centre.repeat(factor, 0).repeat(factor, 1),
        "bilinear": np.stack([np.asarray(one) for one in smooth]).argmax(0),
    }
    return {way: guess[:h, :w] for way, guess in whole.items()}


def bounds(job: UpperBound) -> dict[int, dict[str, dict[str, float]]]:
    """By factor and way the scores of `metrics.scores`, over all pixels of the split."""
    source, k = opened(job.data, job.data.split), len(job.data.classes)
    tables = np.zeros((len(job.factors), len(WAYS), k * k), np.int64)
    for i in range(len(source)):
        label = checked(source, i, k, ("label",))["label"]
        valid = label != IGNORE
        for tables_of_factor, factor in zip(tables, job.factors, strict=True):
            guesses = coarse(label, factor, k)
            for table, way in zip(tables_of_factor, WAYS, strict=True):
                pairs = label[valid].astype(np.int64) * k + guesses[way][valid]
                table += np.bincount(pairs, minlength=k * k)
    return {
        factor: {
            way: metrics.scores({"confusion": table.reshape(k, k)})
            for way, table in zip(WAYS, own, strict=True)
        }
        for factor, own in zip(job.factors, tables, strict=True)
    }


def measure(job: UpperBound) -> list[dict[str, object]]:
    """A row for each factor; the paper's figures and its ordering are beside the majority's."""
    found, rows = bounds(job), []
    for factor, ways in found.items():
        paper = {"mean_iou": PAPER[factor]} if factor in PAPER else {}
        runs = {way: [Cell(job.workdir, scores, None)] for way, scores in ways.items()}
        row = {"factor": factor} | measured(runs["majority"], ("mean_iou",), paper, named)
        rows.append(row | {f"mean IoU, {way}": ways[way]["mean_iou"] for way in WAYS[1:]})
    grid = {f"factor {f}": (Cell(job.workdir, own["majority"], None),) for f, own in found.items()}
    figures = {f"factor {factor}": {"mean_iou": figure} for factor, figure in PAPER.items()}
    names = [f"factor {factor}" for factor in sorted(set(job.factors) & set(PAPER))]
    orderings = [
        Ordering(better, worse, "mean_iou", figures)
        for better, worse in zip(names, names[1:], strict=False)
    ]
    findings = judged(grid, orderings)
    title = f"FCN's upper bounds of coarse prediction, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    return finish(record, f"split {job.data.split}", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: measure(flags.chosen(DEFAULTS)))
