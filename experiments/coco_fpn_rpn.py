"""FPN's region proposal network on COCO as published (Lin et al. 2017, §5.1).

    python experiments/coco_fpn_rpn.py --data.root COCO --start weights/resnet50

ResNet-50 from ImageNet's weights (`encdec import-weights`), its BatchNorm frozen; P2 … P6, three
anchors a cell. Shorter side 800, 16 images a step (the paper's 8 GPUs of 2 each), SGD of momentum
0.9 and decay 1e-4, a rate of 0.02 for 30,000 steps and 0.002 for 10,000. train2017 and val2017 are
the paper's trainval35k and minival but for the choice of the 5,000 images.

Published, minival, Table 1(c): AR of 100 proposals 44.0, of 1,000 56.3; of 1,000 and small, medium,
large objects 44.9, 63.4, 66.2. Started for a few steps only; not run to its end here.

Not the paper's: the stride lies in the 3x3 convolutions, as in torchvision's weights; images have
at most 1,333 pixels on the longer side, as in the authors' later code, and lie on a canvas of 1344.
"""

from pathlib import Path

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.detection import COCODetection
from encdec.encoders.resnet import resnet50
from encdec.experiment import Experiment
from encdec.tasks.detect import Propose
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.fpn_rpn(resnet50("frozen")),
        data=COCODetection(side=(800, 1333), canvas=(1344, 1344)),
        augment=Augment((1344, 1344)),
        task=Propose(),
        optimizer=Optimizer("sgd", rate=0.02, schedule="steps", drops=(0.75,), warmup=0.0),
        steps=40_000,
        batch=16,
        save_every=2000,
        start=Path("weights/resnet50"),
    )


if __name__ == "__main__":
    cli.main(experiment())
