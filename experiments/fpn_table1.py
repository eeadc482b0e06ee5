"""Table 1 of FPN (Lin et al. 2017): proposals from six forms of the pyramid, on one data set.

    python experiments/fpn_table1.py [shapes|bccd] [--seeds 3]

A region proposal network on (a) C4 or (b) C5 alone, with all 15 kinds of anchors, (c) the pyramid,
(d) without the top-down path, (e) without lateral connections, (f) on its finest level alone, again
with 15 kinds. Average recall of 100 and 1,000 proposals and, of 1,000, of small, medium and large
objects (below 32², 96² pixels, above), beside the paper's on COCO with ResNet-50.

The six pyramids are `encdec.decoders.fpn.ablated`. Each run is a folder under --workdir;
interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path

from flax import linen as nn

from encdec import cli, flags
from encdec.anchors import Anchors, pyramid, single
from encdec.data.augment import Augment
from encdec.data.datasets import Dataset
from encdec.data.detection import BCCD, ShapesDetection
from encdec.decoders.fpn import FORMS, FPN, Form, Subsample, ablated
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.dense import rpn
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.detect import Propose
from encdec.train.optimizer import Optimizer

PAPER: dict[Form, tuple[float, ...]] = {
    "a": (36.1, 48.3, 32.0, 58.7, 62.2),
    "b": (36.3, 44.9, 25.3, 55.5, 64.2),
    "c": (44.0, 56.3, 44.9, 63.4, 66.2),
    "d": (37.4, 49.5, 30.5, 59.9, 68.0),
    "e": (34.5, 46.1, 26.5, 57.4, 64.7),
    "f": (38.4, 51.3, 35.1, 59.7, 67.6),
}
"""AR@100, AR@1k, and of small, medium and large objects AR@1k."""

SCORES = ("ar100", "ar1000", "ar_s", "ar_m", "ar_l")


def name(form: Form) -> str:
    """The form's row."""
    return f"({form}) {FORMS[form]}"


FIGURES = {name(form): dict(zip(SCORES, figures, strict=True)) for form, figures in PAPER.items()}
ORDERINGS = [
    Ordering(name("c"), name(worse), score, FIGURES)
    for score in ("ar1000", "ar_s")
    for worse in ("a", "b", "d", "e", "f")
]
"""FPN above every other form, by most for small objects (§5.1)."""


@dataclasses.dataclass(frozen=True)
class Table1:
    """Six forms of the pyramid.

    Attributes:
      sides: of the anchors on P2 … P6; all of them on C4, C5 and the finest level.
      seeds: runs of each form.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    sides: tuple[float, ...]
    encoder: nn.Module = ResNet((2, 2, 2, 2), width=32)
    channels: int = 64
    forms: tuple[Form, ...] = ("a", "b", "c", "d", "e", "f")
    seeds: int = 1
    steps: int = 300
    batch: int = 8
    optimizer: Optimizer = Optimizer(decay=1e-2)
    workdir: Path = Path("runs/fpn_table1")
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or len(self.sides) != 5:
            raise InputError(
                f"--seeds wants 1 or more and --sides five; got {self.seeds} and {self.sides}"
            )


DEFAULTS = {
    "shapes": Table1(
        ShapesDetection(max_boxes=16),
        Augment((256, 256), colour=0.1),
        (8.0, 16.0, 32.0, 64.0, 128.0),
    ),
    "bccd": Table1(
        BCCD(shrink=2, canvas=(240, 320), max_boxes=64),
        Augment((240, 320), scale=(0.8, 1.25), colour=0.2),
        (12.0, 24.0, 48.0, 96.0, 192.0),
        workdir=Path("runs/fpn_table1_bccd"),
    ),
}


def anchors(form: Form, sides: tuple[float, ...]) -> Anchors:
    """One area a level, or all of them on one."""
    alone = {"a": 16, "b": 32, "f": 4}
    return single(alone[form], sides) if form in alone else pyramid(sides)


def experiment(job: Table1, form: Form, seed: int) -> Experiment:
    """One of the job's runs."""
    decoder = ablated(form, FPN(channels=job.channels, coarser=Subsample()))
    head = rpn(anchors(form, job.sides), job.channels)
    return Experiment(
        model=EncoderDecoder(job.encoder, decoder, head),
        data=job.data,
        augment=job.augment,
        task=Propose(),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


def train(job: Table1) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    title = f"FPN's Table 1, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    seeds = range(job.seeds)
    forms = {name(form): [experiment(job, form, seed) for seed in seeds] for form in job.forms}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        rows.append({"form": form} | measured(runs, SCORES, FIGURES[form], named))
        rows[-1]["minutes"] = minutes(runs)
    findings = judged(grid, ORDERINGS)
    return finish(record, "average recall", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
