"""FCN-8s, U-Net and FPN on CamVid, from random weights and from ImageNet's; one table.

    encdec import-weights mobilenet_v2.safetensors --network mobilenet_v2 --source torchvision \\
        --out weights/mobilenet_v2
    python experiments/finetune.py --weights weights/mobilenet_v2 --data.root DIR

Trained at half size, scored at full size. `--starts` also takes "slow", a tenth of the rate for the
encoder, and "frozen", whose encoder and its BatchNorm statistics do not move. Each run is a folder
under --workdir; interrupted, the same command goes on.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

from flax import linen as nn

from encdec import cli, flags, weights
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import finish, measured, minutes, recorded
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer

Start = Literal["random", "pretrained", "slow", "frozen"]
Name = Literal["FCN-8s", "U-Net", "FPN"]
SCORES = ("pixel_accuracy", "mean_iou", "boundary_f")


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Three decoders on one encoder, from several starts.

    Attributes:
      weights: folder of an encoder's weights (`encdec import-weights`).
      starts: "random" weights; "pretrained"; "slow", pretrained, the encoder at a tenth of the
        rate; "frozen", pretrained, the encoder and its BatchNorm statistics as they are.
      steps: of FCN-8s, U-Net and FPN.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    weights: Path
    data: Dataset = CamVid()
    augment: Augment = Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2)
    workdir: Path = Path("runs/finetune")
    models: tuple[Name, ...] = ("FCN-8s", "U-Net", "FPN")
    starts: tuple[Start, ...] = ("random", "pretrained")
    steps: tuple[int, int, int] = (1200, 1200, 1200)
    optimizer: Optimizer = Optimizer(decay=1e-2)
    batch: int = 8
    seed: int = 0
    record: Path | None = None


def model(name: Name, encoder: nn.Module, classes: int) -> EncoderDecoder:
    """One of the three."""
    if name == "FCN-8s":
        decoder, head = FCN((8, 16, 32), classes), Pixel(classes, scores=True)
    elif name == "U-Net":
        decoder = UNet(
            strides=(2, 4, 8, 16, 32),
            channels=(256, 128, 64, 64),
            upsample=UpConv(start="nearest"),
            refine=DoubleConv(norm="batch"),
        )
        head = Pixel(classes)
    else:
        decoder, head = FPN(channels=128), Merge(classes, channels=128)
    return EncoderDecoder(encoder, decoder, head)


def experiment(job: Finetune, name: Name, start: Start) -> Experiment:
    """One of the job's runs."""
    encoder, _ = weights.open(job.weights)
    if not hasattr(encoder, "receptive_fields"):
        raise InputError(
            f"--weights wants those of an encoder; {job.weights} are of a {type(encoder).__name__}"
        )
    classes = len(job.data.classes)
    optimizer = dataclasses.replace(
        job.optimizer,
        rates=(("encoder", 0.1),) if start == "slow" else job.optimizer.rates,
        freeze=("encoder",) if start == "frozen" else job.optimizer.freeze,
    )
    return Experiment(
        model=model(name, encoder, classes),
        data=job.data,
        augment=job.augment,
        task=Segment(classes, losses=(("cross_entropy", 1.0), ("dice", 1.0))),
        optimizer=optimizer,
        steps=dict(zip(("FCN-8s", "U-Net", "FPN"), job.steps, strict=True))[name],
        batch=job.batch,
        seed=job.seed,
        start=None if start == "random" else job.weights,
    )


def train(job: Finetune) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each run."""
    title = f"From random and from ImageNet's weights, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    pairs = {f"{name}, {start}": (name, start) for name in job.models for start in job.starts}
    forms = {form: [experiment(job, *pair)] for form, pair in pairs.items()}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        start = pairs[form][1]
        row = {"form": form, "starts from": start, "steps": forms[form][0].steps}
        rows.append(row | measured(runs, SCORES, name=named) | {"minutes": minutes(runs)})
    return finish(record, "scores", rows)


def main() -> None:
    train(flags.parse(Finetune, sys.argv[1:]))


if __name__ == "__main__":
    cli.guarded(main)
