"""Encoders under FCN-8s, U-Net and FPN on CamVid at quarter size, the same minutes for each.

    python experiments/encoders.py --data.root DIR [--weights DIR] [--minutes 8]

How many steps fit into the minutes, the images being read already, is measured on this machine,
once for each pair, when its first run begins; all seeds have as many. With --weights DIR, which
holds folders of `encdec import-weights` named like the encoders, those that are there are also
trained from them (EfficientNet-lite0 wants `--source smp`: a file of timm's makes another network).
Each run is a folder under --workdir; interrupted, the same command goes on. Given on several
machines that share the folder, each takes runs that no other has.
"""

import dataclasses
import sys
from pathlib import Path
from statistics import median
from typing import Literal

import jax
from flax import linen as nn

from encdec import (
    cli,
    convnext_tiny,
    efficientnet_lite0,
    flags,
    mobilenet_v2,
    resnet18,
    resnet34,
    vgg16,
    weights,
)
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset
from encdec.data.pipeline import train_batches
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.convnext import ConvNeXt
from encdec.encoders.plain import Plain
from encdec.errors import InputError
from encdec.experiment import Experiment, load
from encdec.grid import Cell, folder_of, minutes, trained
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.speed import first_and_fastest
from encdec.summary import flops, parameters
from encdec.table import Row, spread, table
from encdec.tasks.segment import Segment
from encdec.train.loop import first_state, trainer
from encdec.train.optimizer import Optimizer

Decoder = Literal["FCN-8s", "U-Net", "FPN"]

ENCODERS: dict[str, nn.Module] = {
    "plain": Plain((32, 64, 128, 256, 512, 512), norm="batch"),
    "vgg16_bn": vgg16(norm="batch"),
    "resnet18": resnet18(),
    "resnet34": resnet34(),
    "mobilenet_v2": mobilenet_v2(),
    "efficientnet_lite0": efficientnet_lite0(),
    "convnext_tiny": convnext_tiny(),
}
"""By name; "plain" is U-Net's contracting path, one level deeper and half as wide."""


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Encoders by decoders.

    Attributes:
      weights: folder of folders of weights, `resnet18`, …; none: random weights alone.
      encoders, decoders: some of them, by name.
      minutes: of steps, for each run; reading images, compiling and evaluation are not counted.
      seeds: runs of each pair.
      several: encoders that have `seeds` runs; the others have one.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset = CamVid(shrink=4, canvas=(90, 120))
    augment: Augment = Augment(size=(96, 128), scale=(0.6, 1.5), colour=0.2)
    workdir: Path = Path("runs/encoders")
    weights: Path | None = None
    encoders: tuple[str, ...] = tuple(ENCODERS)
    decoders: tuple[Decoder, ...] = ("FCN-8s", "U-Net", "FPN")
    optimizer: Optimizer = Optimizer(decay=1e-2)
    minutes: float = 8.0
    batch: int = 8
    seeds: int = 3
    several: tuple[str, ...] = ("plain", "resnet18", "mobilenet_v2")
    record: Path | None = None

    def __post_init__(self) -> None:
        if unknown := {*self.encoders, *self.several} - set(ENCODERS):
            raise InputError(f"wanted some of {', '.join(ENCODERS)}; got {', '.join(unknown)}")
        if self.minutes <= 0 or self.seeds < 1:
            raise InputError(
                f"--minutes must be above 0 and --seeds 1 or more; got {self.minutes}, {self.seeds}"
            )


def model(name: Decoder, encoder: nn.Module, classes: int) -> EncoderDecoder:
    """The three decoders, of one width each whatever the encoder's."""
    if name == "FCN-8s":
        decoder, head = FCN((8, 16, 32), classes), Pixel(classes, scores=True)
    elif name == "U-Net":
        refine, up = DoubleConv(norm="batch"), UpConv(start="nearest")
        strides = (4, 8, 16, 32) if isinstance(encoder, ConvNeXt) else (2, 4, 8, 16, 32)
        widths = (256, 128, 64, 64)[: len(strides) - 1]
        decoder, head = UNet(strides, widths, upsample=up, refine=refine), Pixel(classes)
    else:
        decoder, head = FPN(channels=128), Merge(classes, channels=128)
    return EncoderDecoder(encoder, decoder, head)


def pairs(job: Encoders) -> dict[str, tuple[str, Decoder, Path | None]]:
    """Encoder, decoder and weights to start from, by what the run is called."""
    found = {}
    for encoder in job.encoders:
        for decoder in job.decoders:
            found[f"{encoder}, {decoder}, random"] = (encoder, decoder, None)
            if job.weights is not None and (start := job.weights / encoder).is_dir():
                found[f"{encoder}, {decoder}, ImageNet"] = (encoder, decoder, start)
    return found


def experiments(job: Encoders, name: str, record: Record) -> list[Experiment]:
    """The runs of a pair, by seed."""
    encoder, decoder, start = pairs(job)[name]
    under = ENCODERS[encoder] if start is None else weights.open(start)[0]
    classes = len(job.data.classes)
    one = Experiment(
        model=model(decoder, under, classes),
        data=job.data,
        augment=job.augment,
        task=Segment(classes, losses=(("cross_entropy", 1.0), ("dice", 1.0))),
        optimizer=job.optimizer,
        batch=job.batch,
        start=start,
    )
    known = [run["steps"] for (form, _), run in record.runs.items() if form == name]
    if (folder_of(job.workdir, name, 0) / "experiment.json").exists():
        known.append(load(folder_of(job.workdir, name, 0)).steps)
    steps = known[0] if known else steps_in(one, 60 * job.minutes)
    seeds = job.seeds if encoder in job.several else 1
    return [dataclasses.replace(one, steps=steps, seed=seed) for seed in range(seeds)]


def steps_in(experiment: Experiment, seconds: float) -> int:
    """Training steps that take so long here, in tens, ten at least."""
    step, state = trainer(experiment), first_state(experiment)
    batch = next(train_batches(experiment.data, batch=experiment.batch, seed=0))

    def once() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, batch, jax.random.key(0)))

    return max(10, 10 * round(seconds / first_and_fastest(once, 5.0)[1] / 10))


def row(job: Encoders, name: str, runs: list[Experiment], record: Record) -> Row:
    """A pair's row."""
    found = [record.run(name, one) for one in runs]
    return {
        "encoder, decoder, from": name,
        "parameters": sum(parameters(runs[0].model).values()),
        "GFLOPs": flops(runs[0].model, job.augment.size) / 1e9,
        "steps": runs[0].steps,
        "images/s": median(run["images_per_s"] for run in found),
        "minutes": minutes([Cell(job.workdir, run["scores"], run["seconds"]) for run in found]),
        "pixel accuracy": spread([run["scores"]["pixel_accuracy"] for run in found]),
        "mean IoU": spread([run["scores"]["mean_iou"] for run in found]),
        "boundary F": spread([run["scores"]["boundary_f"] for run in found]),
    }


def train(job: Encoders) -> list[Row]:
    """Runs what has not been run yet; writes the record after every run; returns the rows."""
    record = Record(job.record or job.workdir / "record.json", "Encoders by decoders")
    for name in pairs(job):  # what others are at comes last
        trained({name: experiments(job, name, record)}, job.workdir, record, wait=False)
    rows: list[Row] = []
    for name in pairs(job):
        runs = experiments(job, name, record)
        trained({name: runs}, job.workdir, record)
        rows.append(row(job, name, runs, record))
    record.write([("every pair", rows), ("mean IoU", crossed(rows))])
    print(f"\n{table(rows)}\n\n{table(crossed(rows))}", flush=True)
    return rows


def crossed(rows: list[Row]) -> list[Row]:
    """Mean IoU, a row for each encoder and start, a column for each decoder."""
    found: dict[tuple, Row] = {}
    for one in rows:
        encoder, decoder, start = str(one["encoder, decoder, from"]).split(", ")
        line = found.setdefault((encoder, start), {"encoder": encoder, "from": start})
        line[f"mean IoU, {decoder}"] = one["mean IoU"]
    return list(found.values())


def main() -> None:
    train(flags.parse(Encoders, sys.argv[1:]))


if __name__ == "__main__":
    cli.guarded(main)
