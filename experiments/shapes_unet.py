"""U-Net on the drawn shapes.

python experiments/shapes_unet.py
"""

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.datasets import Shapes
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            ResNet(width=32),
            UNet(
                strides=(2, 4, 8, 16, 32),
                channels=(128, 64, 32, 32),
                upsample=UpConv(start="nearest"),
                refine=DoubleConv(norm="batch"),
            ),
            Pixel(8),
        ),
        data=Shapes(),
        augment=Augment(size=(128, 128)),
        task=Segment(8),
        optimizer=Optimizer(rate=2e-3),
        steps=250,
    )


if __name__ == "__main__":
    cli.main(experiment())
