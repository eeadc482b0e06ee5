"""Table 2 of FCN (Long et al. 2015): 32s with a fixed encoder, 32s, 16s, 8s; one budget each.

    python experiments/fcn_table2.py [shapes|camvid] [--seeds 3]

Pixel accuracy, mean accuracy, mean IoU and frequency-weighted IoU, beside the paper's with VGG16 on
the 736 images of PASCAL VOC 2011 val that SBD does not train on.

Unlike the paper's, 16s and 8s start where 32s starts, not from it (`stages.py` does that), and the
optimiser is Adam. The paper's encoder comes from ImageNet: `--start DIR`, a folder of
`encdec import-weights` or a run. Without it "fixed" means random features, whose BatchNorm
statistics do not move either. Each run is a folder under --workdir; interrupted, the same command
goes on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from flax import linen as nn

from encdec import cli, flags
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset, Shapes
from encdec.decoders.fcn import FCN
from encdec.encoders.resnet import ResNet, resnet18
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer

Form = Literal["FCN-32s-fixed", "FCN-32s", "FCN-16s", "FCN-8s"]
STRIDES: dict[Form, tuple[int, ...]] = {
    "FCN-32s-fixed": (32,),
    "FCN-32s": (32,),
    "FCN-16s": (16, 32),
    "FCN-8s": (8, 16, 32),
}
SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
FIGURES: dict[Form, tuple[float, ...]] = {
    "FCN-32s-fixed": (83.0, 59.7, 45.4, 72.0),
    "FCN-32s": (89.1, 73.3, 59.4, 81.4),
    "FCN-16s": (90.0, 75.7, 62.4, 83.0),
    "FCN-8s": (90.3, 75.9, 62.7, 83.2),
}
PAPER = {form: dict(zip(SCORES, row, strict=True)) for form, row in FIGURES.items()}
ORDERINGS = [
    Ordering(better, worse, "mean_iou", PAPER)
    for worse, better in zip(PAPER, list(PAPER)[1:], strict=False)
]


@dataclasses.dataclass(frozen=True)
class Table2:
    """Four nets on one encoder.

    Attributes:
      seeds: runs of each form.
      steps: of each run.
      start: folder of weights or of a run, for all forms; none: random.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    encoder: nn.Module
    forms: tuple[Form, ...] = tuple(STRIDES)
    seeds: int = 1
    steps: int = 1000
    batch: int = 8
    optimizer: Optimizer = Optimizer()
    start: Path | None = None
    record: Path | None = None
    workdir: Path = Path("runs/fcn_table2")

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1; got {self.seeds}")


DEFAULTS = {
    "shapes": Table2(
        Shapes(split="test"),
        Augment((128, 128)),
        ResNet(width=32),
        steps=250,
        optimizer=Optimizer(rate=2e-3),
    ),
    "camvid": Table2(
        CamVid(),
        Augment((128, 192), scale=(0.6, 1.5), colour=0.2),
        resnet18(),
        optimizer=Optimizer(decay=1e-2),
        workdir=Path("runs/fcn_table2_camvid"),
    ),
}


def experiment(job: Table2, form: Form, seed: int) -> Experiment:
    """One of the job's runs."""
    classes = len(job.data.classes)
    frozen = ("encoder",) if form == "FCN-32s-fixed" else ()
    return Experiment(
        model=EncoderDecoder(job.encoder, FCN(STRIDES[form], classes), Pixel(classes, scores=True)),
        data=job.data,
        augment=job.augment,
        task=Segment(classes),
        optimizer=dataclasses.replace(job.optimizer, freeze=(*frozen, *job.optimizer.freeze)),
        steps=job.steps,
        batch=job.batch,
        seed=seed,
        start=job.start,
    )


def train(job: Table2) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    seeds, title = range(job.seeds), f"FCN's Table 2, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {form: [experiment(job, form, seed) for seed in seeds] for form in job.forms}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        row = {"form": form} | measured(runs, SCORES, PAPER[form], named)
        rows.append(row | {"minutes": minutes(runs)})
    findings = judged(grid, ORDERINGS)
    return finish(record, "scores", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
