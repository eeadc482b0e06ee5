"""Faster R-CNN on the blood cells of BCCD at half size, scored at full size.

    python experiments/bccd_faster_rcnn.py --data.root DIR
    python experiments/bccd_faster_rcnn.py mobilenet_v2 --start weights/mobilenet_v2 --data.root DIR

A small ResNet from random weights; or MobileNet V2 from ImageNet's, which `encdec import-weights`
put into a folder (README).
Anchors and the regions' levels are half the paper's, as the cells are: a region of 112² pixels is
pooled from stride 16. RoI max pooling; `--model.head.pool align` is RoIAlign.
"""

from encdec import cli
from encdec.anchors import pyramid
from encdec.data.augment import Augment
from encdec.data.detection import BCCD
from encdec.decoders.fpn import FPN
from encdec.encoders.mobilenet import MobileNetV2, mobilenet_v2
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.dense import rpn
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import TwoFC
from encdec.model import EncoderDecoder
from encdec.tasks.two_stage import TwoStage
from encdec.train.optimizer import Optimizer

SMALL = ResNet((2, 2, 2, 2), width=32)


def experiment(encoder: ResNet | MobileNetV2 = SMALL) -> Experiment:
    anchors = pyramid((16.0, 32.0, 64.0, 128.0), (4, 8, 16, 32))
    head = RCNN(
        rpn(anchors, channels=64),
        TwoFC(4, channels=256),
        canonical=112.0,
        candidates=(500, 500),
        proposals=(500, 300),
        number=128,
    )
    return Experiment(
        model=EncoderDecoder(encoder, FPN(channels=64), head),
        data=BCCD(shrink=2, canvas=(240, 320), max_boxes=64),
        augment=Augment((240, 320), scale=(0.8, 1.25), colour=0.2),
        task=TwoStage(3),
        optimizer=Optimizer(decay=1e-2),
        steps=1500,
        evaluate_every=500,
    )


if __name__ == "__main__":
    cli.main({"resnet": experiment(), "mobilenet_v2": experiment(mobilenet_v2())})
