"""RetinaNet on the blood cells of BCCD at half size, scored at full size.

    python experiments/bccd_retinanet.py --data.root DIR
    python experiments/bccd_retinanet.py mobilenet_v2 --start weights/mobilenet_v2 --data.root DIR

A small ResNet from random weights; or MobileNet V2 from ImageNet's, which `encdec import-weights`
put into a folder (README).
Platelets are about 20 pixels wide here, red cells 50, white ones 95: P3 to P5 with areas from 16²
to 100² cover them.
"""

from encdec import cli
from encdec.anchors import pyramid
from encdec.data.augment import Augment
from encdec.data.detection import BCCD
from encdec.decoders.fpn import FPN
from encdec.encoders.mobilenet import MobileNetV2, mobilenet_v2
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.dense import Dense
from encdec.model import EncoderDecoder
from encdec.tasks.detect import Detect
from encdec.train.optimizer import Optimizer

SMALL = ResNet((2, 2, 2, 2), width=32)
STRIDES = (8, 16, 32)


def experiment(encoder: ResNet | MobileNetV2 = SMALL) -> Experiment:
    anchors = pyramid((16.0, 32.0, 64.0), STRIDES, octaves=(0.0, 1 / 3, 2 / 3))
    return Experiment(
        model=EncoderDecoder(
            encoder, FPN(STRIDES, channels=64), Dense(3, anchors, depth=2, channels=64)
        ),
        data=BCCD(shrink=2, canvas=(240, 320), max_boxes=64),
        augment=Augment((240, 320), scale=(0.8, 1.25), colour=0.2),
        task=Detect(3),
        optimizer=Optimizer(decay=1e-2),
        steps=2000,
        evaluate_every=500,
    )


if __name__ == "__main__":
    cli.main({"resnet": experiment(), "mobilenet_v2": experiment(mobilenet_v2())})
