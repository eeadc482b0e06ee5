"""encdec: one set of encoders, three ways to decode (FCN, U-Net, FPN), in JAX and Flax.

    model = encdec.EncoderDecoder(encdec.resnet50(), encdec.FPN(), encdec.Merge(classes=21))

Importing it starts no device, touches no network and sets no flags.
"""

from encdec import anchors, boxes, losses, metrics, papers, parallel, weights
from encdec.data.augment import Augment
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import UNet
from encdec.encoders.convnext import ConvNeXt, convnext_base, convnext_small, convnext_tiny
from encdec.encoders.densenet import DenseNet, densenet121
from encdec.encoders.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_lite0,
)
from encdec.encoders.mobilenet import (
    MobileNetV2,
    MobileNetV3,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50,
    wide_resnet50,
)
from encdec.encoders.vgg import VGG, vgg11, vgg13, vgg16, vgg19
from encdec.errors import InputError
from encdec.experiment import load_run
from encdec.export import export, open_export
from encdec.figures.draw import draw
from encdec.find import find
from encdec.geometry import geometry
from encdec.heads.dense import Dense, MaskMLP, rpn
from encdec.heads.merge import Merge
from encdec.heads.per_level import PerLevel
from encdec.heads.pixel import Pixel
from encdec.heads.pooled import Pooled
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import MaskHead, TwoFC
from encdec.model import EncoderDecoder
from encdec.predict import predict, predict_outputs
from encdec.program import Program
from encdec.random import initial_key
from encdec.summary import summary
from encdec.tasks.detect import Detect, Focal, Mined, Propose, Sampled
from encdec.tasks.masks import Masks
from encdec.tasks.segment import Segment
from encdec.tasks.two_stage import TwoStage

__all__ = [
    "FCN",
    "FPN",
    "Focal",
    "RCNN",
    "VGG",
    "Augment",
    "ConvNeXt",
    "Dense",
    "DenseNet",
    "Detect",
    "EfficientNet",
    "EncoderDecoder",
    "InputError",
    "MaskHead",
    "MaskMLP",
    "Masks",
    "Merge",
    "Mined",
    "MobileNetV2",
    "MobileNetV3",
    "PerLevel",
    "Pixel",
    "Plain",
    "Pooled",
    "Program",
    "Propose",
    "ResNet",
    "Sampled",
    "Segment",
    "TwoFC",
    "TwoStage",
    "UNet",
    "anchors",
    "boxes",
    "convnext_base",
    "convnext_small",
    "convnext_tiny",
    "densenet121",
    "draw",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_lite0",
    "export",
    "find",
    "geometry",
    "initial_key",
    "load_run",
    "losses",
    "metrics",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "open_export",
    "papers",
    "parallel",
    "predict",
    "predict_outputs",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50",
    "rpn",
    "summary",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "weights",
    "wide_resnet50",
]
