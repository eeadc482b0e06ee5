"""Semantic FPN on COCO's stuff as published (Kirillov et al. 2019, Panoptic FPN).

    python experiments/coco_semantic_fpn.py --data.root COCO --start weights/resnet50

ResNet-50 from ImageNet's weights (`encdec import-weights`), its BatchNorm frozen; a branch of 128
channels with GroupNorm; 53 kinds of stuff, and all things as one class. Shorter side drawn from 640
to 800, 16 images a step, Mask R-CNN's schedule: SGD of momentum 0.9 and decay 1e-4, a rate of 0.02,
a tenth of it after 60,000 and again after 80,000 of 90,000 steps, rising over the first 500.

Published: mean IoU 40.2 (the branch alone, val2017). Started for a few steps only; not run to its
end here.

Not the paper's: the stride lies in the 3x3 convolutions, as in torchvision's weights; images have
at most 1,333 pixels on the longer side, as in the authors' code, and lie on a canvas of 1344.
"""

from pathlib import Path

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.stuff import COCOStuff
from encdec.encoders.resnet import resnet50
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.semantic_fpn(54, resnet50("frozen")),
        data=COCOStuff(side=(800, 1333), canvas=(1344, 1344)),
        augment=Augment((1344, 1344), scale=(0.8, 1.0)),
        task=Segment(54),
        optimizer=Optimizer(
            "sgd", rate=0.02, schedule="steps", drops=(60 / 90, 80 / 90), warmup=500 / 90_000
        ),
        steps=90_000,
        batch=16,
        save_every=2000,
        start=Path("weights/resnet50"),
    )


if __name__ == "__main__":
    cli.main(experiment())
