"""FPN on the drawn shapes.

python experiments/shapes_fpn.py
"""

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.datasets import Shapes
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.merge import Merge
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            ResNet(width=32),
            FPN(channels=64),
            Merge(8, channels=64),
        ),
        data=Shapes(),
        augment=Augment(size=(128, 128)),
        task=Segment(8),
        optimizer=Optimizer(rate=2e-3),
        steps=250,
    )


if __name__ == "__main__":
    cli.main(experiment())
