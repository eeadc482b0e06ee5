"""The networks that are timed, in encdec and in PyTorch, with equal parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from flax import linen as nn
from torch.nn import functional

from encdec.arrays import Images, Logits, Maps
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN, Nearest
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import resnet18
from encdec.encoders.vgg import VGG
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.layers import Conv
from encdec.model import EncoderDecoder


@dataclass(frozen=True)
class Pair:
    """One network twice."""

    ours: EncoderDecoder
    theirs: Callable[[], torch.nn.Module]
    classes: int


class Fully(nn.Module):
    """VGG of half width with its classifier as convolutions, fc6 and fc7, on the coarsest map."""

    mean: tuple[float, ...] = VGG.mean
    std: tuple[float, ...] = VGG.std

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        maps = VGG(channels=(32, 64, 128, 256, 256), name="vgg")(images, train=train)
        x = nn.relu(Conv(512, (7, 7), padding=3, name="fc6")(maps[32]))
        return maps | {32: nn.relu(nn.Conv(512, (1, 1), name="fc7")(x))}


class Score3x3(nn.Module):
    """A 3x3 convolution at full resolution: how smp's U-Net ends."""

    classes: int

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Logits]:
        return {"logits": nn.Conv(self.classes, (3, 3), padding=1, name="score")(maps[1])}


class TorchUNet(torch.nn.Module):
    """U-Net's layout, padded and with BatchNorm."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(5)]
        pairs = zip([3, *widths], widths, strict=False)
        self.down = torch.nn.ModuleList([double(i, o) for i, o in pairs])
        self.up = torch.nn.ModuleList()
        self.refine = torch.nn.ModuleList()
        for out in widths[-2::-1]:
            self.up.append(torch.nn.ConvTranspose2d(2 * out, out, 2, 2))
            self.refine.append(double(2 * out, out))
        self.score = torch.nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.down[0](x)]
        for block in self.down[1:]:
            skips.append(block(functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up, refine in zip(self.up, self.refine, strict=True):
            x = refine(torch.cat([up(x), skips.pop()], 1))
        return self.score(x)


def double(inputs: int, outputs: int) -> torch.nn.Sequential:
    layers = []
    for width in (inputs, outputs):
        layers += [
            torch.nn.Conv2d(width, outputs, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(outputs),
            torch.nn.ReLU(inplace=True),
        ]
    return torch.nn.Sequential(*layers)


class TorchFCN8s(torch.nn.Module):
    """FCN-8s on a VGG16 of half width, fc6 and fc7 of 512."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList()
        width = 3
        for convs, out in zip((2, 2, 3, 3, 3), (32, 64, 128, 256, 256), strict=True):
            layers = []
            for _ in range(convs):
                conv = torch.nn.Conv2d(width, out, 3, padding=1)
                layers, width = [*layers, conv, torch.nn.ReLU(inplace=True)], out
            self.stages.append(torch.nn.Sequential(*layers, torch.nn.MaxPool2d(2)))
        self.fc6 = torch.nn.Conv2d(256, 512, 7, padding=3)
        self.fc7 = torch.nn.Conv2d(512, 512, 1)
        self.scores = torch.nn.ModuleList([torch.nn.Conv2d(w, classes, 1) for w in (512, 256, 128)])
        shapes = ((4, 2, 1), (4, 2, 1), (16, 8, 4))
        self.ups = torch.nn.ModuleList(
            [torch.nn.ConvTranspose2d(classes, classes, *shape, bias=False) for shape in shapes]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = functional.relu(self.fc7(functional.relu(self.fc6(x))))
        x = self.scores[0](x)
        for up, score, skip in zip(self.ups, self.scores[1:], (maps[3], maps[2]), strict=False):
            skip = score(skip)
            x = up(x) + skip
        return self.ups[2](x)


@cache
def declare_operators() -> torch.library.Library:
    """Lets torchvision built for CUDA be imported on a CPU: smp uses none of its operators."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def smp(name: str, classes: int) -> torch.nn.Module:
    """segmentation_models.pytorch's, on resnet18; no dropout, bilinear by half pixels as ours."""
    if not torch.cuda.is_available():
        declare_operators()
    import segmentation_models_pytorch

    net = getattr(segmentation_models_pytorch, name)
    net = net("resnet18", encoder_weights=None, classes=classes)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
        if isinstance(module, torch.nn.Upsample):
            module.align_corners = False
        if getattr(module, "upsample", False) is True:  # of a level's stage in the FPN
            module.upsample = False
            module.block.append(torch.nn.Upsample(scale_factor=2, mode="bilinear"))
    return net


WIDTHS = (256, 128, 64, 32, 16)
BATCH = DoubleConv(norm="batch")
NETWORKS = {
    "FPN, ResNet-18 (smp)": Pair(
        EncoderDecoder(resnet18(), FPN(channels=256, output=Copy()), Merge(2, 128)),
        lambda: smp("FPN", 2),
        2,
    ),
    "U-Net, ResNet-18 (smp)": Pair(
        EncoderDecoder(
            resnet18(),
            UNet((2, 4, 8, 16, 32), WIDTHS, upsample=Nearest(), refine=BATCH, finest=1),
            Score3x3(2),
        ),
        lambda: smp("Unet", 2),
        2,
    ),
    "FCN-8s, VGG16 of half width": Pair(
        EncoderDecoder(Fully(), FCN(channels=21), Pixel(21, scores=True, upsample="learned")),
        lambda: TorchFCN8s(21),
        21,
    ),
    "U-Net 32": Pair(
        EncoderDecoder(
            Plain((32, 64, 128, 256, 512), norm="batch"),
            UNet(channels=(256, 128, 64, 32), refine=BATCH),
            Pixel(2),
        ),
        lambda: TorchUNet(32, 2),
        2,
    ),
}
