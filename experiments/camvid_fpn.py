"""FPN on CamVid at half size, scored at full size; and at full size from ImageNet's weights.

python experiments/camvid_fpn.py --data.root DIR
python experiments/camvid_fpn.py mobilenet_v2 --start weights/mobilenet_v2 --data.root DIR

A ResNet-18 from random weights; or MobileNet V2 from ImageNet's, which `encdec import-weights` put
into a folder (README).
"""

import dataclasses

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid
from encdec.decoders.fpn import FPN
from encdec.encoders.mobilenet import mobilenet_v2
from encdec.encoders.resnet import resnet18
from encdec.experiment import Experiment
from encdec.heads.merge import Merge
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            resnet18(),
            FPN(channels=128),
            Merge(11, channels=128),
        ),
        data=CamVid(),
        augment=Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2),
        task=Segment(11, losses=(("cross_entropy", 1.0), ("dice", 1.0))),
        optimizer=Optimizer(rate=1e-3, decay=1e-2),
        steps=1150,
        evaluate_every=300,
    )


def full_size() -> Experiment:
    half = experiment()
    return dataclasses.replace(
        half,
        model=half.model.clone(encoder=mobilenet_v2()),
        data=CamVid(shrink=1, canvas=(360, 480)),
        augment=dataclasses.replace(half.augment, size=(256, 384)),
        steps=2000,
        batch=4,
        evaluate_every=500,
    )


if __name__ == "__main__":
    cli.main({"resnet": experiment(), "mobilenet_v2": full_size()})
