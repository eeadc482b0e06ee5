"""ResNet trunks (He et al. 2016, Table 1), with the stride where torchvision's weights have it.

ResNeXt (Xie et al. 2017, Table 1) and Wide ResNet (Zagoruyko and Komodakis 2016, §3.4) are fields.
"""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Map, Maps
from encdec.errors import InputError
from encdec.layers import Conv, Norm, NormKind, max_pool_3x3, standardise

fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 four times as wide at the end.

    Attributes:
      width: channels of a basic block's convolutions; a bottleneck's 1x1 and 3x3 have `widen`
        times as many, and its last 4 times.
      stride: of the block, in its first 3x3 convolution.
      dilations: of its 3x3 convolutions, the first and what comes after.
      groups: of a bottleneck's 3x3 convolution.
    """

    kind: Literal["basic", "bottleneck"]
    width: int
    stride: int
    norm: NormKind
    dtype: Dtype | None
    dilations: tuple[int, int] = (1, 1)
    widen: int = 1
    groups: int = 1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        def conv_norm(
            x: Map,
            channels: int,
            kernel: int,
            stride: int,
            name: str,
            relu: bool = False,
            dilation: int = 1,
        ) -> Map:
            # Padding is explicit: "SAME" shifts the grid on even sizes with stride 2.
            x = Conv(
                channels,
                (kernel, kernel),
                stride,
                padding=kernel // 2 * dilation,
                kernel_dilation=dilation,
                feature_group_count=self.groups if kernel == 3 else 1,
                use_bias=False,
                kernel_init=fan_out_normal,
                dtype=self.dtype,
                name=f"conv{name}",
            )(x)
            norm = Norm(self.norm, relu, self.dtype, self.epsilon, name=f"norm{name}")
            return norm(x, train=train)

        width, inner = self.width, self.width * self.widen
        first, after = self.dilations
        layers = {
            "basic": ((width, 3, self.stride, first), (width, 3, 1, after)),
            "bottleneck": ((inner, 1, 1, 1), (inner, 3, self.stride, first), (4 * width, 1, 1, 1)),
        }[self.kind]
        skip, y = x, x
        for i, (channels, kernel, stride, dilation) in enumerate(layers, 1):
            y = conv_norm(y, channels, kernel, stride, str(i), i < len(layers), dilation)
        if skip.shape[-1] != y.shape[-1] or self.stride > 1:
            skip = conv_norm(skip, y.shape[-1], 1, self.stride, "_skip")
        return nn.relu(skip + y)


class ResNet(nn.Module):
    """7x7 convolution and max pooling, then four stages of residual blocks.

    Attributes:
      blocks: in each stage; (2, 2, 2, 2) is ResNet-18.
      kind: "basic" (18, 34) or "bottleneck" (50, 101, 152).
      width: channels of the first stage, 64 in the paper; every stage doubles it.
      widen: a bottleneck's first two convolutions have that many times as many channels.
      groups: of a bottleneck's 3x3 convolutions, ResNeXt's cardinality.
      output_stride: 16 or 8 keep the last stage, or the last two, at that stride by dilation.
      together: the map of that stride holds, along its channels, all stages that have it, the
        deepest last; otherwise the deepest alone.
      epsilon: added to a variance; 0 in torchvision's detectors with COCO weights.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    kind: Literal["basic", "bottleneck"] = "basic"
    width: int = 64
    widen: int = 1
    groups: int = 1
    output_stride: Literal[8, 16, 32] = 32
    together: bool = False
    norm: NormKind = "batch"
    epsilon: float = 1e-5
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns C1 … C5 by stride: the stem at 2, the stages' last blocks at 4, 8, 16, 32.

        Strides above `output_stride` are not there: the stages are at that stride.
        """
        self.check()
        x = standardise(images, self.mean, self.std)
        x = Conv(
            self.width,
            (7, 7),
            2,
            padding=3,
            use_bias=False,
            kernel_init=fan_out_normal,
            dtype=self.dtype,
            name="conv1",
        )(x)
        norm = Norm(self.norm, True, self.dtype, self.epsilon, name="norm1")
        x = norm(x, train=train)
        x = checkpoint_name(x, MAP)
        maps = {2: x}
        x = max_pool_3x3(x)
        for stage, blocks in enumerate(self.blocks, 1):
            stride, step, first, after = self.stage(stage)
            for i in range(1, blocks + 1):
                x = Block(
                    self.kind,
                    self.width * 2 ** (stage - 1),
                    step if i == 1 else 1,
                    self.norm,
                    self.dtype,
                    (first if i == 1 else after, after),
                    self.widen,
                    self.groups,
                    self.epsilon,
                    name=f"stage{stage}_block{i}",
                )(x, train=train)
            x = checkpoint_name(x, MAP)
            both = self.together and stride in maps
            maps[stride] = jnp.concatenate([maps[stride], x], -1) if both else x
        return maps

    def check(self) -> None:
        """Raises InputError for fields that make no network."""
        if min((self.width, self.widen, self.groups, *self.blocks)) < 1:
            raise InputError(
                "ResNet wants width, widen, groups and blocks of at least 1; got "
                f"{self.width}, {self.widen}, {self.groups} and {self.blocks}"
            )
        if self.kind == "basic" and (self.widen, self.groups) != (1, 1):
            raise InputError(
                f"basic blocks want widen and groups of 1; got {self.widen} and {self.groups}: "
                'take kind="bottleneck"'
            )
        if self.width * self.widen % self.groups:
            raise InputError(
                f"{self.groups} groups do not divide {self.width * self.widen} channels: take "
                "another width"
            )

    def stage(self, stage: int) -> tuple[int, int, int, int]:
        """Stride of its map, stride of its first block, dilation of that block's first 3x3
        convolution and of all others (torchvision's order)."""
        full, before = 2 ** (stage + 1), max(2**stage, 4)
        stride = min(full, self.output_stride)
        return (
            stride,
            stride // min(before, self.output_stride),
            max(before // self.output_stride, 1),
            max(full // self.output_stride, 1),
        )

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis (ResNet-18: C5 435)."""
        fields, field = {2: 7}, 7 + 2 * 2
        for stage, blocks in enumerate(self.blocks, 1):
            stride, step, first, after = self.stage(stage)
            wide = 1 if self.kind == "bottleneck" else 2  # 3x3 convolutions in a block
            field += 2 * first * stride // step + 2 * after * stride * (wide * blocks - 1)
            fields[stride] = field
        return fields


def resnet18(norm: NormKind = "batch") -> ResNet:
    """11,176,512 parameters."""
    return ResNet((2, 2, 2, 2), "basic", norm=norm)


def resnet34(norm: NormKind = "batch") -> ResNet:
    """21,284,672 parameters."""
    return ResNet((3, 4, 6, 3), "basic", norm=norm)


def resnet50(norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32) -> ResNet:
    """23,508,032 parameters."""
    return ResNet((3, 4, 6, 3), "bottleneck", output_stride=output_stride, norm=norm)


def resnet101(norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32) -> ResNet:
    """42,500,160 parameters."""
    return ResNet((3, 4, 23, 3), "bottleneck", output_stride=output_stride, norm=norm)


def resnet152(norm: NormKind = "batch") -> ResNet:
    """58,143,808 parameters."""
    return ResNet((3, 8, 36, 3), "bottleneck", norm=norm)


def resnext50(norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32) -> ResNet:
    """ResNeXt-50 32x4d, 32 groups of 4 channels in the first stage: 22,979,904 parameters."""
    return ResNet(
        (3, 4, 6, 3), "bottleneck", widen=2, groups=32, output_stride=output_stride, norm=norm
    )


def wide_resnet50(norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32) -> ResNet:
    """Wide ResNet-50-2, 3x3 convolutions twice as wide: 66,834,240 parameters."""
    return ResNet((3, 4, 6, 3), "bottleneck", widen=2, output_stride=output_stride, norm=norm)
