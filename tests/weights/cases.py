"""Published networks, "SOURCE NAME", and what they are here."""

from pathlib import Path

import encdec
from encdec import papers
from encdec.decoders.fpn import Strided
from encdec.heads.dense import Dense
from tests.weights.two_stage import detector

FILE = Path(__file__).parent / "published.npz"
CASES = {
    f"{source} {name}": getattr(encdec, name)()
    for source in ("torchvision", "timm", "smp")
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg19")
} | {
    "torchvision resnext50_32x4d": encdec.resnext50(),
    "timm resnext50_32x4d": encdec.resnext50(),
    "smp resnext50_32x4d": encdec.resnext50(),
    "torchvision wide_resnet50_2": encdec.wide_resnet50(),
    "timm wide_resnet50_2": encdec.wide_resnet50(),
    "torchvision densenet121": encdec.densenet121(),
    "timm densenet121": encdec.densenet121(),
    "smp densenet121": encdec.densenet121(),
    "torchvision convnext_tiny": encdec.convnext_tiny(),
    "torchvision convnext_small": encdec.convnext_small(),
    "torchvision convnext_base": encdec.convnext_base(),
    "timm convnext_tiny": encdec.convnext_tiny(),
    "timm convnext_base": encdec.convnext_base(),
    "torchvision mobilenet_v2": encdec.mobilenet_v2(),
    "smp mobilenet_v2": encdec.mobilenet_v2(),
    "timm mobilenetv2_100": encdec.mobilenet_v2(),
    "torchvision mobilenet_v3_small": encdec.mobilenet_v3_small(),
    "torchvision mobilenet_v3_large": encdec.mobilenet_v3_large(),
    "timm mobilenetv3_large_100": encdec.mobilenet_v3_large(),
    **{
        f"{source} efficientnet{dash}b{i}": getattr(encdec, f"efficientnet_b{i}")()
        for source, dash in (("torchvision", "_"), ("timm", "_"), ("smp", "-"))
        for i in range(5)
    },
    "timm tf_efficientnet_lite0": encdec.efficientnet_lite0(),
    "torchvision vgg16_bn": encdec.vgg16("batch"),
    "torchvision vgg11": encdec.vgg11(),
    "torchvision vgg13": encdec.vgg13(),
    "torchvision fcn_resnet50": papers.dilated_fcn(21, 50),
    "torchvision fcn_resnet101": papers.dilated_fcn(21, 101),
    "torchvision retinanet_resnet50_fpn": papers.retinanet(91),
    "torchvision retinanet_resnet50_fpn_v2": papers.retinanet(91).clone(
        decoder=encdec.FPN((8, 16, 32), coarser=Strided()), head=Dense(91, norm="group")
    ),
    "torchvision ssd300_vgg16": papers.ssd300(91),
    "torchvision fasterrcnn_resnet50_fpn": detector(91, False, encdec.resnet50()),
    "torchvision maskrcnn_resnet50_fpn": detector(91, True, encdec.resnet50()),
    "smp Unet": papers.smp_unet(21, encdec.resnet34()),
    "smp Unet scse": papers.smp_unet(21, encdec.resnet34(), attention=True),
    "smp FPN": papers.smp_fpn(21, encdec.resnet34()),
}
