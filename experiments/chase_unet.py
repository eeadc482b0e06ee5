"""A U-Net on the retinal vessels of CHASE_DB1: children 1-8 to train on, 9 and 10 to score.

python experiments/chase_unet.py --data.root DIR
python experiments/chase_unet.py dice --data.root DIR   # longer, Dice in its loss, eight turns

"dice" also varies size and colour more, has twice the learning rate and a hundred times the weight
decay, and starts its up-convolutions as nearest-neighbour upsampling.
"""

import dataclasses

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.biomedical import ChaseDB1
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.plain import Plain
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
        data=ChaseDB1(),
        augment=Augment(
            size=(256, 256), scale=(0.8, 1.25), rotate=180.0, colour=0.2, border="mirror"
        ),
        task=Segment(2, also=("roc",)),
        optimizer=Optimizer(rate=1e-3),
        steps=1000,
        batch=4,
    )


def dice() -> Experiment:
    plain = experiment()
    decoder = plain.model.decoder.clone(upsample=UpConv(start="nearest"))
    return dataclasses.replace(
        plain,
        model=plain.model.clone(decoder=decoder),
        augment=dataclasses.replace(plain.augment, scale=(0.7, 1.4), colour=0.4),
        task=dataclasses.replace(plain.task, losses=(("cross_entropy", 1.0), ("dice", 1.0))),
        optimizer=Optimizer(rate=2e-3, decay=1e-2),
        steps=1700,
        tta=("flip", "rotate90"),
    )


if __name__ == "__main__":
    cli.main({"plain": experiment(), "dice": dice()})
