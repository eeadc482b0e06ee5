"""U-Net on the slices of ISBI 2012: elastic deformation, mirrored borders.

python experiments/isbi_unet.py --data.root DIR                       # slices 0-19, scored on 20-23
python experiments/isbi_unet.py --data.root DIR --augment.elastic 0   # no elastic deformation
python experiments/isbi_unet.py normalised --data.root DIR            # padded, BatchNorm, longer

The paper's optimiser is SGD of momentum 0.99 (§3), without a rate or a number of steps; here it is
Adam. As in the paper, and at its width: experiments/isbi_unet_paper.py.

"normalised" is no paper's: padded and with BatchNorm, up-convolutions that start as nearest
upsampling, Dice in its loss, scales, and, not one tile of 444 pixels, batches of four of 256, with
half the deformation. Membranes weigh four times as much as the inside of cells: a gap joins two of
them. (V_rand and V_info are read at the best threshold of 0.1 to 0.9.) Scores are the mean over
eight flips and quarter turns; the paper's table averages seven rotations.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.biomedical import ISBI
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.plain import Plain
from encdec.experiment import Experiment
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    paper = papers.unet(classes=2, width=16)
    return Experiment(
        model=paper.clone(encoder=paper.encoder.clone(mean=(0.5,), std=(0.25,))),
        data=ISBI(),
        augment=Augment(size=(444, 444), rotate=180.0, colour=0.2, elastic=10.0, border="mirror"),
        task=Segment(2, also=("membranes",)),
        optimizer=Optimizer(rate=1e-3),
        steps=1500,
        batch=1,
        save_every=250,
    )


def normalised() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            Plain((16, 32, 64, 128, 256), norm="batch"),
            UNet(
                channels=(128, 64, 32, 16),
                upsample=UpConv(start="nearest"),
                refine=DoubleConv(norm="batch"),
            ),
            Pixel(2),
        ),
        data=ISBI(),
        augment=Augment(
            size=(256, 256),
            scale=(0.8, 1.25),
            rotate=180.0,
            colour=0.2,
            elastic=5.0,
            border="mirror",
        ),
        task=Segment(
            2,
            losses=(("cross_entropy", 1.0), ("dice", 1.0)),
            class_weights=(4.0, 1.0),
            also=("membranes",),
        ),
        optimizer=Optimizer(rate=2e-3, decay=1e-2),
        steps=2000,
        batch=4,
        tta=("flip", "rotate90"),
    )


if __name__ == "__main__":
    cli.main({"paper": experiment(), "normalised": normalised()})
