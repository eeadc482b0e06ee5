"""The papers' networks in PyTorch, written from the papers; the libraries' from the libraries.

Offsets, sizes and orders are numbers here, as the papers and the released nets have them: nothing
is derived, and nothing of encdec is used.
"""

import torch
from torch import nn
from torch.nn import functional


class VGG16(nn.Module):
    """The trunk of FCN's nets: conv1_1 padded by 100, pooling rounded up, fc6 and fc7 convolved."""

    def __init__(self, channels: tuple[int, ...], fc: tuple[int, int]) -> None:
        super().__init__()
        width = 3
        for stage, (count, out) in enumerate(zip((2, 2, 3, 3, 3), channels, strict=True), 1):
            for i in range(1, count + 1):
                pad = 100 if (stage, i) == (1, 1) else 1
                self.add_module(f"conv{stage}_{i}", nn.Conv2d(width, out, 3, padding=pad))
                width = out
        self.fc6 = nn.Conv2d(width, fc[0], 7)
        self.fc7 = nn.Conv2d(fc[0], fc[1], 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pools = []
        for stage, count in enumerate((2, 2, 3, 3, 3), 1):
            for i in range(1, count + 1):
                x = functional.relu(getattr(self, f"conv{stage}_{i}")(x))
            x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        x = functional.relu(self.fc7(functional.relu(self.fc6(x))))
        return pools[2], pools[3], x


class AlexNet(nn.Module):
    """The trunk of FCN-AlexNet, from CaffeNet: pooling before normalisation, convolutions in two
    groups."""

    def __init__(self, channels: tuple[int, ...], fc: tuple[int, int]) -> None:
        super().__init__()
        one, two, three, four, five = channels
        self.conv1 = nn.Conv2d(3, one, 11, stride=4, padding=100)
        self.conv2 = nn.Conv2d(one, two, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(two, three, 3, padding=1)
        self.conv4 = nn.Conv2d(three, four, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(four, five, 3, padding=1, groups=2)
        self.fc6 = nn.Conv2d(five, fc[0], 6)
        self.fc7 = nn.Conv2d(fc[0], fc[1], 1)

    def forward(self, x: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        for conv in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(conv(x)), 3, 2, ceil_mode=True)
            x = functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
        for conv in (self.conv3, self.conv4, self.conv5):
            x = functional.relu(conv(x))
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        return None, None, functional.relu(self.fc7(functional.relu(self.fc6(x))))


def bilinear(size: int, classes: int) -> torch.Tensor:
    """Caffe's filler: one bilinear kernel for each class, nothing between classes."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / factor
    weight = torch.zeros(classes, classes, size, size, dtype=torch.float64)
    for c in range(classes):
        weight[c, c] = ramp[:, None] * ramp[None]
    return weight


class FCN(nn.Module):
    """FCN-32s, -16s, -8s and -AlexNet; transposed convolutions are bilinear and fixed, or learned.

    Args:
      widths: of pool3, pool4 and fc7.
      last: kernel, stride and crop of the last transposed convolution.
      scales: of pool4 and pool3.
    """

    def __init__(
        self,
        trunk: nn.Module,
        widths: tuple[int, int, int],
        classes: int,
        last: tuple[int, int, int],
        learned: bool,
        scales: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.trunk, self.scales = trunk, scales
        kernel, self.stride, self.crop = last
        self.score_fr = nn.Conv2d(widths[2], classes, 1)
        if self.stride <= 16:
            self.upscore2 = self.deconvolution(classes, 4, 2, learned)
            self.score_pool4 = nn.Conv2d(widths[1], classes, 1)
        if self.stride <= 8:
            self.upscore_pool4 = self.deconvolution(classes, 4, 2, learned)
            self.score_pool3 = nn.Conv2d(widths[0], classes, 1)
        self.upscore = self.deconvolution(classes, kernel, self.stride, learned)

    @staticmethod
    def deconvolution(classes: int, kernel: int, stride: int, learned: bool) -> nn.Module:
        layer = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=False)
        layer.weight = nn.Parameter(bilinear(kernel, classes), requires_grad=learned)
        return layer

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = x.shape[2:]
        pool3, pool4, fc7 = self.trunk(x)
        score = self.score_fr(fc7)
        if self.stride <= 16:
            score = self.upscore2(score)
            skip = self.score_pool4(pool4 * self.scales[0])
            score = score + skip[:, :, 5 : 5 + score.shape[2], 5 : 5 + score.shape[3]]
        if self.stride <= 8:
            score = self.upscore_pool4(score)
            skip = self.score_pool3(pool3 * self.scales[1])
            score = score + skip[:, :, 9 : 9 + score.shape[2], 9 : 9 + score.shape[3]]
        score, crop = self.upscore(score), self.crop
        return {"logits": score[:, :, crop : crop + height, crop : crop + width]}


class UNet(nn.Module):
    """Figure 1. As released: a ReLU after each up-convolution, and the last one twice as wide."""

    def __init__(self, width: int, classes: int, released: bool) -> None:
        super().__init__()
        self.released = released
        inputs = 1
        for level in range(5):
            out = width * 2**level
            self.add_module(f"d{level}a", nn.Conv2d(inputs, out, 3))
            self.add_module(f"d{level}b", nn.Conv2d(out, out, 3))
            inputs = out
        for level in (3, 2, 1, 0):
            out = width * 2**level
            wide = 2 * out if released and level == 0 else out
            self.add_module(f"u{level}", nn.ConvTranspose2d(2 * out, wide, 2, 2))
            self.add_module(f"u{level}a", nn.Conv2d(wide + out, out, 3))
            self.add_module(f"u{level}b", nn.Conv2d(out, out, 3))
        self.out = nn.Conv2d(width, classes, 1)

    def twice(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for part in "ab":
            x = functional.relu(getattr(self, name + part)(x))
        return x

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        skips = []
        for level in range(5):
            x = self.twice(functional.max_pool2d(x, 2) if level else x, f"d{level}")
            skips.append(x)
        for level in (3, 2, 1, 0):
            x = getattr(self, f"u{level}")(x)
            x = functional.relu(x) if self.released else x
            top, left = ((skips[level].shape[i] - x.shape[i]) // 2 for i in (2, 3))
            skip = skips[level][:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.twice(torch.cat([x, skip], 1), f"u{level}")
        return {"logits": self.out(x)}


class SemanticFPN(nn.Module):
    """Panoptic FPN's semantic branch on a pyramid of P2 … P5.

    Args:
      trunk: gives C2 … C5.
      widths: of C2 … C5.
    """

    def __init__(
        self, trunk: nn.Module, widths: tuple[int, ...], pyramid: int, branch: int, classes: int
    ) -> None:
        super().__init__()
        self.trunk = trunk
        for level, width in zip((2, 3, 4, 5), widths, strict=True):
            self.add_module(f"lateral{level}", nn.Conv2d(width, pyramid, 1))
            self.add_module(f"smooth{level}", nn.Conv2d(pyramid, pyramid, 3, padding=1))
            inputs = pyramid
            for stage in range(max(level - 2, 1)):
                conv = nn.Conv2d(inputs, branch, 3, padding=1, bias=False)
                self.add_module(f"conv{level}_{stage}", conv)
                self.add_module(f"norm{level}_{stage}", nn.GroupNorm(32, branch))
                inputs = branch
        self.score = nn.Conv2d(branch, classes, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        path, total = None, 0
        maps = dict(zip((2, 3, 4, 5), self.trunk(x), strict=True))
        for level in (5, 4, 3, 2):
            lateral = getattr(self, f"lateral{level}")(maps[level])
            if path is not None:
                lateral = lateral + functional.interpolate(path, scale_factor=2, mode="nearest")
            path = lateral
            y = getattr(self, f"smooth{level}")(path)
            for stage in range(max(level - 2, 1)):
                y = getattr(self, f"conv{level}_{stage}")(y)
                y = functional.relu(getattr(self, f"norm{level}_{stage}")(y))
                if level > 2:
                    y = doubled(y, 2)
            total = total + y
        return {"logits": doubled(self.score(total), 4)}


def doubled(x: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def resnet(kind: str, layers: tuple[int, ...], width: int, dilate: tuple[bool, ...] = ()) -> type:
    """torchvision's ResNet with a first stage of `width` channels, not 64."""
    from torchvision.models import resnet as published

    class Narrow(published.ResNet):
        def _make_layer(self, block, planes, *rest, **options):
            if planes == 64:  # the stem comes before
                self.inplanes = width
                self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
            return super()._make_layer(block, planes * width // 64, *rest, **options)

        def __init__(self, **options) -> None:
            block = {"basic": published.BasicBlock, "bottleneck": published.Bottleneck}[kind]
            options |= {"replace_stride_with_dilation": list(dilate)} if dilate else {}
            super().__init__(block, list(layers), num_classes=1, **options)

    return Narrow


class Stages(nn.Module):
    """C2 … C5 of a ResNet of torchvision."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        t = self.trunk
        x, maps = t.maxpool(t.relu(t.bn1(t.conv1(x)))), []
        for layer in (t.layer1, t.layer2, t.layer3, t.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class Dilated(nn.Module):
    """torchvision's `fcn_resnet50` on a narrow ResNet, without dropout; "aux" in training."""

    def __init__(self, layers: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.segmentation import fcn

        trunk = resnet("bottleneck", layers, width, (False, True, True))()
        self.net = fcn.FCN(
            IntermediateLayerGetter(trunk, {"layer4": "out", "layer3": "aux"}),
            fcn.FCNHead(32 * width, classes),
            fcn.FCNHead(16 * width, classes),
        )
        for head in (self.net.classifier, self.net.aux_classifier):
            head[3].p = 0.0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.net(x)
        return {"logits": outputs["out"]} | ({"aux": outputs["aux"]} if self.training else {})


class Smp(nn.Module):
    """segmentation_models.pytorch's `Unet` or `FPN` on a narrow ResNet of basic blocks."""

    def __init__(
        self, name: str, layers: tuple[int, ...], width: int, classes: int, **options: str
    ) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp
        from segmentation_models_pytorch.encoders.resnet import ResNetEncoder

        class Narrow(ResNetEncoder, resnet("basic", layers, width)):
            pass

        channels = (3, width, width, 2 * width, 4 * width, 8 * width)
        smp.encoders.encoders["narrow"] = {
            "encoder": Narrow,
            "pretrained_settings": {},
            "params": {"out_channels": channels},
        }
        self.net = getattr(smp, name)("narrow", encoder_weights=None, classes=classes, **options)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.net(x)}
