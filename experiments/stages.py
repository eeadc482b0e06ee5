"""FCN trained in stages: 32s, from it 16s, from it 8s (Long et al. 2015, §4.2); one command.

    python experiments/stages.py                                     # shapes, drawn on first use
    python experiments/stages.py camvid --data.root DIR
    python experiments/stages.py voc --data.root DIR --data.sbd DIR  # as released
    python experiments/stages.py voc_cvpr --data.root DIR --data.sbd DIR  # batches of 20

Published nets start from ImageNet: `--start DIR`, a folder that `encdec import-weights` made of
VGG16's classifier (`--network vgg16_fc`).

A stage starts from the former one's checkpoint, its new score layer from zero, at a lower rate. The
loss is summed over an image's pixels ("heavy learning": momentum 0.99, bias rates doubled, fixed
rates), or a mean over batches of 20 with momentum 0.9, as in the CVPR text. Each stage is a run
folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from flax import linen as nn

from encdec import cli, flags, papers
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset, Shapes, VOCSegmentation
from encdec.decoders.fcn import FCN
from encdec.encoders.resnet import ResNet, resnet18
from encdec.evaluate import evaluate, evaluator
from encdec.experiment import Experiment
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.table import table
from encdec.tasks.segment import Segment
from encdec.train.loop import first_state, run, started
from encdec.train.optimizer import Optimizer

STAGES = {"FCN-32s": (32,), "FCN-16s": (16, 32), "FCN-8s": (8, 16, 32)}


@dataclasses.dataclass(frozen=True)
class Stages:
    """FCN-32s, 16s and 8s in turn, for the data named before the flags: shapes (the default),
    camvid, voc or voc_cvpr.

    Attributes:
      encoder: of all stages; VGG16 with pad 100, fc6 and fc7 is the paper's.
      rates: learning rate of each stage, in place of the optimizer's.
      reduction: the loss is the "sum" over pixels or their "mean".
      start: folder of weights or of a run, for the first stage; none: random.
      steps: of each stage.
      class_weights: of the loss, by true class; none in the paper, where balancing did not help.
      workdir: folder of the three runs.
    """

    data: Dataset
    augment: Augment
    workdir: Path
    encoder: nn.Module
    rates: tuple[float, float, float]
    steps: int = 250
    batch: int = 8
    seed: int = 0
    class_weights: tuple[float, ...] = ()
    reduction: Literal["sum", "mean"] = "sum"
    start: Path | None = None
    optimizer: Optimizer = Optimizer(
        "sgd", schedule="constant", warmup=0.0, momentum=0.99, decay=5e-4, bias_rate=2.0
    )


DEFAULTS = {
    "shapes": Stages(
        data=Shapes(split="test"),
        augment=Augment(size=(128, 128)),
        workdir=Path("runs/stages_shapes"),
        encoder=ResNet(width=32),
        rates=(1e-7, 1e-8, 1e-8),
    ),
    "camvid": Stages(
        data=CamVid(),
        augment=Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2),
        workdir=Path("runs/stages_camvid"),
        encoder=resnet18(),
        rates=(1e-7, 1e-8, 1e-8),
        steps=1000,
    ),
    "voc": Stages(
        data=VOCSegmentation(canvas=(500, 500)),
        augment=Augment(size=(500, 500), flip=0.0),
        workdir=Path("runs/stages_voc"),
        encoder=papers.VGG16,
        rates=(1e-10, 1e-12, 1e-14),
        steps=100_000,
        batch=1,
    ),
    "voc_cvpr": Stages(
        data=VOCSegmentation(canvas=(500, 500)),
        augment=Augment(size=(500, 500), flip=0.0),
        workdir=Path("runs/stages_voc_cvpr"),
        encoder=papers.VGG16,
        rates=(1e-4, 1e-6, 1e-8),
        steps=74_358,  # 175 epochs of 8,498 images
        batch=20,
        reduction="mean",
        optimizer=Optimizer(
            "sgd", schedule="constant", warmup=0.0, momentum=0.9, decay=5e-4, bias_rate=2.0
        ),
    ),
}


def experiment(job: Stages, stage: int) -> Experiment:
    """The run of a stage: 0, 1 or 2."""
    name, strides = list(STAGES.items())[stage]
    classes = len(job.data.classes)
    if hasattr(job.encoder, "fc"):
        model = papers.fcn(strides, classes, "fixed", encoder=job.encoder)
    else:
        decoder, head = FCN(strides, classes), Pixel(classes, scores=True)
        model = EncoderDecoder(job.encoder, decoder, head)
    return Experiment(
        model=model,
        data=job.data,
        augment=job.augment,
        task=Segment(classes, reduction=job.reduction, class_weights=job.class_weights),
        optimizer=dataclasses.replace(job.optimizer, rate=job.rates[stage]),
        steps=job.steps,
        batch=job.batch,
        seed=job.seed,
        start=job.workdir / list(STAGES)[stage - 1] if stage else job.start,
    )


def train(job: Stages) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each stage."""
    rows = []
    for stage, name in enumerate(STAGES):
        one = experiment(job, stage)
        first = first_state(one)
        if one.start is not None:
            first = started(first, one)
        before = evaluate(one, first.variables(), evaluator(one))
        after = run(one, job.workdir / name)
        rows.append(
            {
                "stage": name,
                "starts from": one.start.name if one.start else "random weights",
                "rate": f"{job.rates[stage]:.0e}",
                "steps": job.steps,
                "mean IoU at its start": before["mean_iou"],
                "mean IoU": after["mean_iou"],
                "pixel accuracy": after["pixel_accuracy"],
                "boundary F": after["boundary_f"],
            }
        )
    (job.workdir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{table(rows)}")
    return rows


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
