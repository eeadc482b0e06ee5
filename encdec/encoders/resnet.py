"""ResNet trunks (He et al. 2016, Table 1), with the stride where torchvision's weights have it."""

from typing import Literal

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Map, Maps
from encdec.errors import InputError
from encdec.layers import Conv, Norm, NormKind, max_pool_3x3, standardise

fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 four times as wide at the end.

    Attributes:
      width: channels of the 3x3 convolution.
      stride: of the block, in its first 3x3 convolution.
    """

    kind: Literal["basic", "bottleneck"]
    width: int
    stride: int
    norm: NormKind
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        def conv_norm(
            x: Map, channels: int, kernel: int, stride: int, name: str, relu: bool = False
        ) -> Map:
            # Padding is explicit: "SAME" shifts the grid on even sizes with stride 2.
            x = Conv(
                channels,
                (kernel, kernel),
                stride,
                padding=kernel // 2,
                use_bias=False,
                kernel_init=fan_out_normal,
                dtype=self.dtype,
                name=f"conv{name}",
            )(x)
            return Norm(self.norm, relu, self.dtype, name=f"norm{name}")(x, train=train)

        width = self.width
        layers = {
            "basic": ((width, 3, self.stride), (width, 3, 1)),
            "bottleneck": ((width, 1, 1), (width, 3, self.stride), (4 * width, 1, 1)),
        }[self.kind]
        skip, y = x, x
        for i, (channels, kernel, stride) in enumerate(layers, 1):
            y = conv_norm(y, channels, kernel, stride, str(i), relu=i < len(layers))
        if skip.shape[-1] != y.shape[-1] or self.stride > 1:
            skip = conv_norm(skip, y.shape[-1], 1, self.stride, "_skip")
        return nn.relu(skip + y)


class ResNet(nn.Module):
    """7x7 convolution and max pooling, then four stages of residual blocks.

    Attributes:
      blocks: in each stage; (2, 2, 2, 2) is ResNet-18.
      kind: "basic" (18, 34) or "bottleneck" (50, 101, 152).
      width: channels of the first stage, 64 in the paper; every stage doubles it.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    kind: Literal["basic", "bottleneck"] = "basic"
    width: int = 64
    norm: NormKind = "batch"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns C1 … C5 by stride: the stem at 2, the stages' last blocks at 4, 8, 16, 32."""
        if min((self.width, *self.blocks)) < 1:
            raise InputError(
                f"ResNet wants width and blocks of at least 1; got {self.width} and {self.blocks}"
            )
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
        x = Norm(self.norm, relu=True, dtype=self.dtype, name="norm1")(x, train=train)
        x = checkpoint_name(x, MAP)
        maps = {2: x}
        x = max_pool_3x3(x)
        for stage, blocks in enumerate(self.blocks, 1):
            for i in range(1, blocks + 1):
                x = Block(
                    self.kind,
                    self.width * 2 ** (stage - 1),
                    2 if i == 1 and stage > 1 else 1,
                    self.norm,
                    self.dtype,
                    name=f"stage{stage}_block{i}",
                )(x, train=train)
            x = maps[2 ** (stage + 1)] = checkpoint_name(x, MAP)
        return maps

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis (ResNet-18: C5 435)."""
        fields, field = {2: 7}, 7 + 2 * 2
        for stage, blocks in enumerate(self.blocks, 1):
            stride = 2 ** (stage + 1)
            before = stride // 2 if stage > 1 else stride
            wide = 1 if self.kind == "bottleneck" else 2  # 3x3 convolutions in a block
            field += 2 * before + 2 * stride * (wide * blocks - 1)
            fields[stride] = field
        return fields


def resnet18(norm: NormKind = "batch") -> ResNet:
    """11,176,512 parameters."""
    return ResNet((2, 2, 2, 2), "basic", norm=norm)


def resnet34(norm: NormKind = "batch") -> ResNet:
    """21,284,672 parameters."""
    return ResNet((3, 4, 6, 3), "basic", norm=norm)


def resnet50(norm: NormKind = "batch") -> ResNet:
    """23,508,032 parameters."""
    return ResNet((3, 4, 6, 3), "bottleneck", norm=norm)


def resnet101(norm: NormKind = "batch") -> ResNet:
    """42,500,160 parameters."""
    return ResNet((3, 4, 23, 3), "bottleneck", norm=norm)


def resnet152(norm: NormKind = "batch") -> ResNet:
    """58,143,808 parameters."""
    return ResNet((3, 8, 36, 3), "bottleneck", norm=norm)
