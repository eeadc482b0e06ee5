"""FCN-16s on Pascal VOC as published, from FCN-32s.

    python experiments/voc_fcn16s.py --data.root VOC2011 --data.sbd SBD

Heavy learning: one whole image a step, momentum 0.99, the loss summed over its pixels, so that the
rate is 1e-12; rates of biases doubled, only kernels decay; no augmentation. Published: mean IU
65.0 on the 736 images of seg11valid, from ImageNet weights. Started for a few steps only; not run
to its end here. All stages in one command: experiments/stages.py voc.
"""

from pathlib import Path

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.datasets import VOCSegmentation
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.fcn16s(),
        data=VOCSegmentation(canvas=(500, 500)),
        augment=Augment(size=(500, 500), flip=0.0),
        task=Segment(21, reduction="sum"),
        optimizer=Optimizer(
            "sgd",
            rate=1e-12,
            schedule="constant",
            warmup=0.0,
            momentum=0.99,
            decay=5e-4,
            bias_rate=2.0,
        ),
        steps=100_000,
        batch=1,
        save_every=2000,
        start=Path("runs/voc_fcn32s"),
    )


if __name__ == "__main__":
    cli.main(experiment())
