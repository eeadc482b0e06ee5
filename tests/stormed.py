"""The run that `tests.storm` kills: python -m tests.stormed KIND --workdir DIR."""

import sys

import encdec
from encdec import cli
from encdec.anchors import pyramid
from encdec.data.datasets import Shapes
from encdec.data.detection import ShapesDetection
from encdec.decoders.unet import DoubleConv
from encdec.experiment import Experiment
from encdec.heads.dense import Dense
from encdec.tasks.detect import Detect
from encdec.train.optimizer import Optimizer

SAVE_EVERY = 10


def experiment(kind: str) -> Experiment:
    """Small, with BatchNorm and augmentation."""
    unet = encdec.UNet(strides=(1, 2), channels=(8,), refine=DoubleConv(norm="batch"))
    plain = encdec.EncoderDecoder(encdec.Plain((8, 8), norm="batch"), unet, encdec.Pixel(8))
    base = {
        "augment": encdec.Augment((32, 32), scale=(0.8, 1.2), colour=0.1),
        "steps": 400,
        "batch": 4,
        "log_every": 1,
        "save_every": SAVE_EVERY,
        "evaluate_every": 50,
    }
    shapes = Shapes(size=32, train=40, val=8, test=2)
    if kind == "plain":
        return Experiment(plain, shapes, task=encdec.Segment(8), **base)
    if kind == "all":
        encoder = encdec.Plain((8, 8), norm="batch", dropout=0.2)
        model = plain.clone(encoder=encoder, dtype="bfloat16")
        optimizer = Optimizer(accumulate=3, ema=0.9)
        return Experiment(model, shapes, task=encdec.Segment(8), optimizer=optimizer, **base)
    head = Dense(7, pyramid((8.0, 16.0), (2, 4)), depth=1, channels=8)
    model = encdec.EncoderDecoder(encdec.ResNet((1, 1), width=8), encdec.FPN((2, 4), 8), head)
    detected = ShapesDetection(size=64, sides=(8, 32), train=40, val=8, test=2)
    return Experiment(model, detected, task=Detect(7), **base)


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    cli.main(experiment(kind))
