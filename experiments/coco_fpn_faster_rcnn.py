"""Faster R-CNN on FPN on COCO as published, features not shared (Lin et al. 2017, §5.2).

    python experiments/coco_fpn_faster_rcnn.py --data.root COCO --start runs/coco_fpn_rpn

The proposals are those of experiments/coco_fpn_rpn.py, which is frozen; the detector has its own
ResNet-50, from the weights that the proposals' run started from, BatchNorm frozen. RoI max pooling
from P2 … P5, two layers of 1,024, 81 classes. Shorter side 800, 16 images a step (the paper's 8
GPUs of 2 each), 2,000 proposals of an image, 512 of them trained on; at the end 1,000. SGD of
momentum 0.9 and decay 1e-4, a rate of 0.02 for 60,000 steps and 0.002 for 20,000.

Published, minival, Tables 3(c) and 5: AP50 56.9, AP 33.9; of small, medium, large objects 17.8,
37.7, 45.8 (Table 2(c)). Started for a few steps only; not run to its end here. What else differs is
what differs of the proposals.
"""

from pathlib import Path

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.detection import COCODetection
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import resnet50
from encdec.experiment import Experiment
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import TwoFC
from encdec.model import EncoderDecoder
from encdec.tasks.two_stage import TwoStage
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    encoder = resnet50("frozen")
    head = RCNN(rpn=None, box=TwoFC(81))
    return Experiment(
        model=EncoderDecoder(encoder, FPN(), head, proposer=papers.fpn_rpn(encoder)),
        data=COCODetection(side=(800, 1333), canvas=(1344, 1344)),
        augment=Augment((1344, 1344)),
        task=TwoStage(80),
        optimizer=Optimizer(
            "sgd", rate=0.02, schedule="steps", drops=(0.75,), warmup=0.0, freeze=("proposer",)
        ),
        steps=80_000,
        batch=16,
        save_every=2000,
        start=Path("runs/coco_fpn_rpn"),
    )


if __name__ == "__main__":
    cli.main(experiment())
