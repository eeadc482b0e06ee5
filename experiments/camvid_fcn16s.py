"""FCN-16s on CamVid at half size, scored at full size.

python experiments/camvid_fcn16s.py --data.root DIR
"""

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid
from encdec.decoders.fcn import FCN
from encdec.encoders.resnet import resnet18
from encdec.experiment import Experiment
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            resnet18(),
            FCN(strides=(16, 32), channels=11),
            Pixel(11, scores=True),
        ),
        data=CamVid(),
        augment=Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2),
        task=Segment(11, losses=(("cross_entropy", 1.0), ("dice", 1.0))),
        optimizer=Optimizer(rate=1e-3, decay=1e-2),
        steps=2000,
        evaluate_every=300,
    )


if __name__ == "__main__":
    cli.main(experiment())
