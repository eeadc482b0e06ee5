"""FCN-32s on Pascal VOC as published, the first stage.

    python experiments/voc_fcn32s.py --data.root VOC2011 --data.sbd SBD

Heavy learning: one whole image a step, momentum 0.99, the loss summed over its pixels, so that the
rate is 1e-10; rates of biases doubled, only kernels decay; no augmentation. Published: mean IU
63.6 on the 736 images of seg11valid, from ImageNet weights. Started for a few steps only; not run
to its end here. All stages in one command: experiments/stages.py voc.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.datasets import VOCSegmentation
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.fcn32s(),
        data=VOCSegmentation(canvas=(500, 500)),
        augment=Augment(size=(500, 500), flip=0.0),
        task=Segment(21, reduction="sum"),
        optimizer=Optimizer(
            "sgd",
            rate=1e-10,
            schedule="constant",
            warmup=0.0,
            momentum=0.99,
            decay=5e-4,
            bias_rate=2.0,
        ),
        steps=100_000,
        batch=1,
        save_every=2000,
    )


if __name__ == "__main__":
    cli.main(experiment())
