"""A U-Net on the nuclei of the Data Science Bowl 2018, with and without the border weight map.

python experiments/dsb2018_unet.py --data.root DIR                      # all pixels weigh the same
python experiments/dsb2018_unet.py data.border:border --data.root DIR   # U-Net's equation 2
python experiments/dsb2018_unet.py resnet --data.root DIR               # ResNet-18, gaps weigh more

Padded and normalised, unlike the paper's, so that whole images of 256x256 pixels are one tile. The
ResNet's finest map has stride 2, which costs less for each image; that recipe also trains longer,
at another rate, adds Dice to the loss and leaves the elastic deformation out. Of equation 2 it
keeps the weight of gaps between nuclei, lower (w0 4, not 10) and narrower (sigma 3, not 5), without
the balance of classes. It is scored as the mean of all eight turns.
"""

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.biomedical import DSB2018
from encdec.data.border import Border
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            Plain((16, 32, 64, 128, 256), norm="batch"),
            UNet(channels=(128, 64, 32, 16), refine=DoubleConv(norm="batch")),
            Pixel(2),
        ),
        data=DSB2018(),
        augment=Augment(
            size=(256, 256),
            scale=(0.75, 1.33),
            rotate=180.0,
            colour=0.2,
            elastic=5.0,
            border="mirror",
        ),
        task=Segment(2, also=("objects",)),
        optimizer=Optimizer(rate=1e-3),
        steps=1000,
        batch=4,
    )


def resnet() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            ResNet((2, 2, 2, 2), width=32),
            UNet(
                (2, 4, 8, 16, 32),
                (128, 64, 32, 32),
                upsample=UpConv(start="nearest"),
                refine=DoubleConv(norm="batch"),
            ),
            Pixel(2),
        ),
        data=DSB2018(border=Border(w0=4.0, sigma=3.0, balance=False)),
        augment=Augment(
            size=(256, 256), scale=(0.75, 1.33), rotate=180.0, colour=0.2, border="mirror"
        ),
        task=Segment(2, losses=(("cross_entropy", 1.0), ("dice", 1.0)), also=("objects",)),
        optimizer=Optimizer(rate=2e-3, decay=1e-2),
        steps=2500,
        tta=("flip", "rotate90"),
    )


if __name__ == "__main__":
    cli.main({"plain": experiment(), "resnet": resnet()})
