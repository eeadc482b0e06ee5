"""Semantic FPN (Kirillov et al. 2019): how wide the branch, and its levels added or concatenated.

    python experiments/semantic_fpn_ablations.py [shapes|camvid] [--seeds 3]

Each level of the pyramid is convolved and upsampled to stride 4 by a branch of 64, 128 or 256
channels; the four maps are added, or put side by side, and classified. Mean IoU beside the paper's
on Cityscapes val, with ResNet-50 from ImageNet and a pyramid of 256 channels; here the encoder and
the pyramid are half as wide, or what `--encoder` and `--channels` say, and the optimiser is Adam.
Each run is a folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from flax import linen as nn

from encdec import cli, flags
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset, Shapes
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.merge import Merge, MergeConcatenated
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.summary import flops, parameters
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer

Form = Literal["sum, 64", "sum, 128", "sum, 256", "concatenation, 128"]
FIGURES: dict[Form, float] = {
    "sum, 64": 74.1,
    "sum, 128": 74.5,
    "sum, 256": 74.6,
    "concatenation, 128": 74.4,
}
PAPER = {form: {"mean_iou": figure} for form, figure in FIGURES.items()}
OTHERS = ("pixel_accuracy", "boundary_f")
ORDERINGS = [
    Ordering("sum, 128", "sum, 64", "mean_iou", PAPER),
    Ordering("sum, 256", "sum, 128", "mean_iou", PAPER),
    Ordering("sum, 128", "concatenation, 128", "mean_iou", PAPER),
]


@dataclasses.dataclass(frozen=True)
class Ablations:
    """Four branches on one pyramid.

    Attributes:
      channels: of the pyramid.
      seeds: runs of each form.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    encoder: nn.Module = ResNet(width=32)
    channels: int = 128
    forms: tuple[Form, ...] = tuple(FIGURES)
    seeds: int = 1
    steps: int = 250
    batch: int = 8
    optimizer: Optimizer = Optimizer(rate=2e-3)
    record: Path | None = None
    workdir: Path = Path("runs/semantic_fpn_ablations")

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1; got {self.seeds}")


DEFAULTS = {
    "shapes": Ablations(Shapes(split="test"), Augment((128, 128))),
    "camvid": Ablations(
        CamVid(),
        Augment((128, 192), scale=(0.6, 1.5), colour=0.2),
        steps=400,
        optimizer=Optimizer(rate=2e-3, decay=1e-2),
        workdir=Path("runs/semantic_fpn_ablations_camvid"),
    ),
}


def experiment(job: Ablations, form: Form, seed: int) -> Experiment:
    """One of the job's runs."""
    classes, (kind, width) = len(job.data.classes), form.split(", ")
    head = {"sum": Merge, "concatenation": MergeConcatenated}[kind](classes, int(width))
    return Experiment(
        model=EncoderDecoder(job.encoder, FPN(channels=job.channels), head),
        data=job.data,
        augment=job.augment,
        task=Segment(classes),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


def train(job: Ablations) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    seeds, title = range(job.seeds), f"Semantic FPN's branch, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {form: [experiment(job, form, seed) for seed in seeds] for form in job.forms}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        model = forms[form][0].model
        size = {"head": parameters(model)["head"], "GFLOPs": flops(model, job.augment.size) / 1e9}
        row = {"form": form} | size | measured(runs, ("mean_iou",), PAPER[form], named)
        rows.append(row | measured(runs, OTHERS, name=named) | {"minutes": minutes(runs)})
    findings = judged(grid, ORDERINGS)
    return finish(record, "scores", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
