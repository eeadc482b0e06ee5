"""Heavy learning: one image and momentum 0.99 against twenty and 0.9 (FCN, journal version).

    python experiments/fcn_momentum.py [shapes|camvid] [--seeds 3] [--images 8000]

FCN-32s, trained on as many images in each form and at one rate; the loss is the sum over an image's
pixels, a batch's the mean of its images'. A batch of k images with momentum p behaves like one of
k' with p' where p^(1/k) = p'^(1/k'): 0.9^(1/20) = 0.995. At one rate the forms also differ in how
far a gradient carries in all: 1 / (1 - p) of the rate.

The paper's mean IoU on PASCAL VOC 2011 val is as others quote it: its text was not at hand. Its
encoder, VGG16 from ImageNet, has no normalisation; here GroupNorm takes the place of BatchNorm,
which a batch of one image would change too. Biases have twice the rate and no decay. Each run is a
folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path

from flax import linen as nn

from encdec import cli, flags
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset, Shapes
from encdec.decoders.fcn import FCN
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer

FORMS = {"accumulated": (0, 0.9), "online": (1, 0.9), "heavy": (1, 0.99)}
"""Which of the job's batches, and momentum."""

FIGURES = {"accumulated": 51.9, "online": 60.7, "heavy": 63.6}
PAPER = {form: {"mean_iou": figure} for form, figure in FIGURES.items()}
OTHERS = ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
ORDERINGS = [
    Ordering("heavy", "online", "mean_iou", PAPER),
    Ordering("online", "accumulated", "mean_iou", PAPER),
]


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Three ways to take as many gradients.

    Attributes:
      encoder: of all; without BatchNorm.
      batches: images of a step: of "accumulated", and of the two others.
      images: of a run.
      rate: of all; the loss is a sum, so about 1e-3 over an image's pixels.
      seeds: runs of each form.
      start: folder of weights or of a run, for all forms; none: random.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    encoder: nn.Module = ResNet(width=32, norm="group")
    batches: tuple[int, int] = (20, 1)
    images: int = 4000
    rate: float = 1e-7
    seeds: int = 1
    start: Path | None = None
    record: Path | None = None
    workdir: Path = Path("runs/fcn_momentum")

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.images < max(self.batches) or min(self.batches) < 1:
            raise InputError(
                "--seeds and --batches want 1 or more, and --images as many as a batch has; got "
                f"{self.seeds}, {self.batches} and {self.images}"
            )


DEFAULTS = {
    "shapes": Momentum(Shapes(split="test"), Augment((128, 128))),
    "camvid": Momentum(
        CamVid(),
        Augment((128, 192), scale=(0.6, 1.5), colour=0.2),
        workdir=Path("runs/fcn_momentum_camvid"),
    ),
}


def experiment(job: Momentum, form: str, seed: int) -> Experiment:
    """One of the job's runs."""
    classes, (which, momentum) = len(job.data.classes), FORMS[form]
    batch = job.batches[which]
    return Experiment(
        model=EncoderDecoder(job.encoder, FCN((32,), classes), Pixel(classes, scores=True)),
        data=job.data,
        augment=job.augment,
        task=Segment(classes, reduction="sum"),
        optimizer=Optimizer(
            "sgd",
            rate=job.rate,
            schedule="constant",
            warmup=0.0,
            momentum=momentum,
            decay=5e-4,
            bias_rate=2.0,
        ),
        steps=job.images // batch,
        batch=batch,
        seed=seed,
        log_every=max(1, 160 // batch),
        start=job.start,
    )


def train(job: Momentum) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    seeds, title = range(job.seeds), f"FCN's heavy learning, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {form: [experiment(job, form, seed) for seed in seeds] for form in FORMS}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        which, momentum = FORMS[form]
        row = {"form": form, "batch": job.batches[which], "momentum": momentum}
        row |= measured(runs, ("mean_iou",), PAPER[form], named)
        row |= measured(runs, OTHERS, name=named) | {"minutes": minutes(runs)}
        rows.append(row)
    findings = judged(grid, ORDERINGS)
    return finish(record, "scores", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
