"""Mask proposals from a pyramid (FPN §6, appendix A) on drawn scenes, from random weights.

    python experiments/mask_proposals.py
    python experiments/mask_proposals.py --model.head.kernels 5      # without the half octaves

A 5x5 and a 7x7 network on every level; the scenes' objects have 8 to 128 pixels, so that a mask is
for objects of 4 cells, not 8, 16 to 181 pixels, and a quarter more. The scores are the average
recalls of masks. The paper's net is `encdec.papers.fpn_masks`, its recipe SGD with momentum, rate
0.03, 80,000 batches of 16 images, a tenth of the rate after 60,000.
"""

from encdec import cli
from encdec.data.augment import Augment
from encdec.data.detection import ShapesDetection
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.experiment import Experiment
from encdec.heads.dense import MaskMLP
from encdec.model import EncoderDecoder
from encdec.tasks.masks import Masks
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=EncoderDecoder(
            ResNet((2, 2, 2, 2), width=32),
            FPN(channels=64),
            MaskMLP((5, 7), channels=64, scale=4.0),
        ),
        data=ShapesDetection(max_boxes=16),
        augment=Augment((256, 256), colour=0.1),
        task=Masks(),
        optimizer=Optimizer(decay=1e-2),
        steps=1000,
    )


if __name__ == "__main__":
    cli.main(experiment())
