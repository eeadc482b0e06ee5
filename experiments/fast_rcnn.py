"""Fast R-CNN on fixed proposals, six forms of the pyramid: Table 2 of FPN (Lin et al. 2017, §5.2).

    python experiments/fast_rcnn.py [shapes|bccd] [--forms c d]

Two stages in one command: a region proposal network on the pyramid, form (c) of Table 1; then, on
its proposals, which no longer change, detectors with encoders of their own that read (a) C4 or (b)
C5 alone, (c) the pyramid, (d) without the top-down path, (e) without lateral connections, (f) its
finest level alone. Average precision beside the paper's on COCO with ResNet-50.

Unlike the paper's, C4 and C5 pass a 1x1 and a 3x3 convolution to the pyramid's width, and C4 too
has two fully connected layers, not the encoder's last stage. The paper has 2,000 proposals in
training, 1,000 in evaluation, 512 regions and 1,024 hidden channels (`RCNN`'s own values); here
they are fewer. Published nets start from ImageNet: `--start DIR`, a folder of
`encdec import-weights`, for the proposals and the detectors both.

Each run is a folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path

from flax import linen as nn

from encdec import cli, flags
from encdec.anchors import pyramid
from encdec.data.augment import Augment
from encdec.data.datasets import Dataset
from encdec.data.detection import BCCD, ShapesDetection
from encdec.decoders.fpn import FORMS, FPN, Form, Subsample, ablated
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.grid import Ordering, cell, finish, judged, measured, minutes, recorded
from encdec.heads.dense import rpn
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import TwoFC
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.detect import Propose
from encdec.tasks.two_stage import TwoStage
from encdec.train.optimizer import Optimizer

PAPER: dict[Form, tuple[float, ...]] = {
    "a": (54.7, 31.9, 15.7, 36.5, 45.5),
    "b": (52.9, 28.8, 11.9, 32.4, 43.4),
    "c": (56.9, 33.9, 17.8, 37.7, 45.8),
    "d": (44.9, 24.9, 10.9, 24.4, 38.5),
    "e": (54.0, 31.3, 13.3, 35.2, 45.3),
    "f": (56.3, 33.4, 17.3, 37.3, 45.6),
}
SCORES = ("ap50", "ap", "ap_s", "ap_m", "ap_l")


def name(form: Form) -> str:
    """The form's row."""
    return f"({form}) {FORMS[form]}"


FIGURES = {name(form): dict(zip(SCORES, figures, strict=True)) for form, figures in PAPER.items()}
ORDERINGS = [
    Ordering(name("c"), name(worse), score, FIGURES)
    for score in ("ap", "ap_s")
    for worse in ("a", "b", "d", "e", "f")
]
"""FPN above every other form (§5.2.1)."""


@dataclasses.dataclass(frozen=True)
class FastRCNN:
    """Proposals, then detectors on them, for the data named before the flags: shapes or bccd.

    Attributes:
      sides: of the anchors on P2 … P6.
      canonical: side in pixels of a region that is pooled from stride 16.
      encoder: of the proposals' net and, with weights of its own, of each detector.
      hidden: channels of the two fully connected layers.
      proposals: of an image, in training and in evaluation.
      regions: of them that are trained on.
      steps: of the proposals' net and of each detector.
      start: folder of weights or of a run; none: random.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    sides: tuple[float, float, float, float, float]
    canonical: float
    encoder: nn.Module = ResNet((2, 2, 2, 2), width=32)
    channels: int = 64
    hidden: int = 256
    proposals: tuple[int, int] = (500, 300)
    regions: int = 128
    forms: tuple[Form, ...] = ("a", "b", "c", "d", "e", "f")
    steps: tuple[int, int] = (600, 600)
    batch: int = 8
    seed: int = 0
    optimizer: Optimizer = Optimizer(decay=1e-2)
    start: Path | None = None
    workdir: Path = Path("runs/fast_rcnn")
    record: Path | None = None


DEFAULTS = {
    "shapes": FastRCNN(
        ShapesDetection(max_boxes=16),
        Augment((256, 256), colour=0.1),
        (8.0, 16.0, 32.0, 64.0, 128.0),
        canonical=64.0,
    ),
    "bccd": FastRCNN(
        BCCD(shrink=2, canvas=(240, 320), max_boxes=64),
        Augment((240, 320), scale=(0.8, 1.25), colour=0.2),
        (12.0, 24.0, 48.0, 96.0, 192.0),
        canonical=112.0,
        workdir=Path("runs/fast_rcnn_bccd"),
    ),
}


def proposer(job: FastRCNN) -> EncoderDecoder:
    """The region proposal network, on P2 … P6."""
    head = rpn(pyramid(job.sides), job.channels)
    return EncoderDecoder(job.encoder, FPN(channels=job.channels, coarser=Subsample()), head)


def detector(job: FastRCNN, form: Form) -> EncoderDecoder:
    """The form's Fast R-CNN around it."""
    decoder = ablated(form, FPN(channels=job.channels))
    head = RCNN(
        rpn=None,
        box=TwoFC(len(job.data.classes) + 1, job.hidden),
        strides=decoder.outputs(),
        canonical=job.canonical,
        candidates=job.proposals,
        proposals=job.proposals,
        number=job.regions,
    )
    return EncoderDecoder(job.encoder, decoder, head, proposer=proposer(job))


def experiment(job: FastRCNN, form: Form | None) -> Experiment:
    """The run of a form; of the proposals' net where there is none."""
    shared = Experiment(
        model=proposer(job),
        data=job.data,
        augment=job.augment,
        task=Propose(),
        optimizer=job.optimizer,
        steps=job.steps[0],
        batch=job.batch,
        seed=job.seed,
        start=job.start,
    )
    if form is None:
        return shared
    return dataclasses.replace(
        shared,
        model=detector(job, form),
        task=TwoStage(len(job.data.classes)),
        optimizer=dataclasses.replace(job.optimizer, freeze=("proposer", *job.optimizer.freeze)),
        steps=job.steps[1],
        start=job.workdir / "proposals",
    )


def train(job: FastRCNN) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    title = f"FPN's Table 2, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {name(form): [experiment(job, form)] for form in job.forms}
    if any(record.run(form, one) is None for form, (one,) in forms.items()):
        cell(experiment(job, None), job.workdir / "proposals")
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        rows.append({"form": form} | measured(runs, SCORES, FIGURES[form], named))
        rows[-1]["minutes"] = minutes(runs)
    findings = judged(grid, ORDERINGS)
    return finish(record, "average precision", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
