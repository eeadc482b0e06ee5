"""Is FPN a FCN or U-Net that predicts on every level, as SSD does? One change at a time; one table.

    python experiments/one_stage.py [shapes|bccd] [--seeds 3]

One encoder, one set of anchors, one loss (SSD's: softmax, hard negatives) and one layer from the
decoder's maps to the boxes, a 3x3 convolution. What differs:

    SSD                    the encoder's own maps, each level its own convolution
    SSD, one width         1x1 and 3x3 convolutions first, still without a top-down path
    FCN, finest level      FPN's top-down path (added, as in FCN), all anchors on its last map
    U-Net, finest level    concatenated and convolved twice, all anchors on its last map
    U-Net + SSD            the same path, every level predicts, each by its own convolution
    FPN, own heads         FPN's path, every level predicts, each by its own convolution
    FPN                    the same convolution on every level

Average precision of all, and of small, medium and large objects (below 32², 96² pixels, above).
Each run is a folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path

from flax import linen as nn

from encdec import cli, flags
from encdec.anchors import Anchors, pyramid
from encdec.data.augment import Augment
from encdec.data.datasets import Dataset
from encdec.data.detection import BCCD, ShapesDetection
from encdec.decoders.fpn import FPN
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.dense import Dense
from encdec.heads.per_level import PerLevel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.summary import parameters
from encdec.tasks.detect import Detect, Mined
from encdec.train.optimizer import Optimizer

STRIDES = (4, 8, 16, 32)
FORMS = (
    "SSD",
    "SSD, one width",
    "FCN, finest level",
    "U-Net, finest level",
    "U-Net + SSD",
    "FPN, own heads",
    "FPN",
)
SCORES = ("ap", "ap50", "ap_s", "ap_m", "ap_l")
ORDERINGS = [
    Ordering(better, worse, score, {})
    for score in ("ap", "ap_s")
    for better, worse in (
        ("FPN, own heads", "SSD, one width"),
        ("FPN, own heads", "FCN, finest level"),
        ("U-Net + SSD", "U-Net, finest level"),
    )
]
"""What FPN's paper says of a top-down path (§1), and of predicting on every level (§2)."""


@dataclasses.dataclass(frozen=True)
class OneStage:
    """From SSD to FPN.

    Attributes:
      sides: of the anchors at strides 4, 8, 16 and 32; each also √2 times as large.
      width: channels of the decoder's maps.
      forms: some of those in the script's head.
      seeds: runs of each form.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    sides: tuple[float, float, float, float]
    encoder: nn.Module = ResNet((2, 2, 2, 2), width=32)
    width: int = 64
    forms: tuple[str, ...] = FORMS
    seeds: int = 1
    steps: int = 600
    batch: int = 8
    optimizer: Optimizer = Optimizer(decay=1e-2)
    workdir: Path = Path("runs/one_stage")
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or (wrong := set(self.forms) - set(FORMS)):
            raise InputError(
                f"--seeds wants 1 or more and --forms some of {', '.join(map(repr, FORMS))}; got "
                f"{self.seeds} and {self.forms if self.seeds < 1 else sorted(wrong)}"
            )


DEFAULTS = {
    "shapes": OneStage(
        ShapesDetection(max_boxes=16), Augment((256, 256), colour=0.1), (8.0, 16.0, 32.0, 64.0)
    ),
    "bccd": OneStage(
        BCCD(shrink=2, canvas=(240, 320), max_boxes=64),
        Augment((240, 320), scale=(0.8, 1.25), colour=0.2),
        (16.0, 32.0, 48.0, 80.0),
        workdir=Path("runs/one_stage_bccd"),
    ),
}


def decoder(form: str, width: int) -> nn.Module:
    """The form's maps, each of its own width or all of one."""
    pyramids = FPN(STRIDES, width)
    path = UNet(
        STRIDES,
        (4 * width, 2 * width, width),
        upsample=UpConv(start="nearest"),
        refine=DoubleConv(norm="batch"),
    )
    return {
        "SSD": FPN(STRIDES, width, lateral=Copy(), merge="skip", output=Copy()),
        "SSD, one width": pyramids.clone(merge="skip"),
        "FCN, finest level": pyramids.clone(levels="finest"),
        "U-Net, finest level": path,
        "U-Net + SSD": path.clone(levels="every"),
        "FPN, own heads": pyramids,
        "FPN": pyramids,
    }[form]


def head(form: str, sides: tuple[float, ...], classes: int) -> nn.Module:
    """A 3x3 convolution to the classes, background first, and the boxes of every anchor."""
    anchors = pyramid(sides, STRIDES, octaves=(0.0, 0.5))
    if form.endswith("finest level"):
        sizes = [size for _, kinds in anchors.kinds for size in kinds]
        anchors = Anchors(((min(STRIDES), tuple(sizes)),))
    # A start as small as RetinaNet's (§4.1): Xavier's of SSD takes a map's scale for granted, and
    # what comes down adds up.
    if form == "FPN":
        return Dense(classes + 1, anchors, depth=0, start=0.01, box_start=0.01)
    return PerLevel(classes + 1, anchors, start=0.01)


def experiment(job: OneStage, form: str, seed: int) -> Experiment:
    """One of the job's runs."""
    classes = len(job.data.classes)
    return Experiment(
        model=EncoderDecoder(job.encoder, decoder(form, job.width), head(form, job.sides, classes)),
        data=job.data,
        augment=job.augment,
        task=Detect(
            classes,
            Mined(),
            negative=0.5,
            best="first",
            weights=(10.0, 10.0, 5.0, 5.0),
            beta=1.0,
            threshold=0.01,
            overlap=0.45,
            candidates=400,
        ),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


def train(job: OneStage) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    title = f"From SSD to FPN, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    seeds = range(job.seeds)
    forms = {form: [experiment(job, form, seed) for seed in seeds] for form in job.forms}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        sizes = parameters(forms[form][0].model)
        parts = {"decoder": sizes["decoder"], "head": sizes["head"]}
        rows.append({"form": form} | parts | measured(runs, SCORES, name=named))
        rows[-1]["minutes"] = minutes(runs)
    findings = judged(grid, ORDERINGS)
    return finish(record, "average precision", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
