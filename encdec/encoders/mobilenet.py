"""MobileNet V2 (Sandler et al. 2018) and V3 (Howard et al. 2019), with torchvision's numbers."""

from typing import Literal

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Maps
from encdec.encoders.inverted import (
    ConvNorm,
    Form,
    Row,
    divisible,
    receptive_fields,
    walk,
)
from encdec.errors import InputError
from encdec.layers import NormKind, standardise

LARGE = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
"""MobileNet V3, Table 1."""

SMALL = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)
"""MobileNet V3, Table 2."""


class MobileNetV2(nn.Module):
    """Inverted residuals with linear bottlenecks and ReLU6.

    Attributes:
      table: t, c, n, s of every stage, as in Table 2: expansion, channels, blocks, first stride.
      width: multiplier of all channels, rounded to multiples of 8.
      last: the map of stride 32 is the 1x1 convolution to 1280 channels that comes before the
        classifier, as in segmentation_models.pytorch; otherwise its input of 320, as in timm.
      output_stride: 16 or 8 keep what is coarser at that stride by dilation.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    table: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    width: float = 1.0
    last: bool = True
    output_stride: Literal[8, 16, 32] = 32
    norm: NormKind = "batch"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns maps by stride: the last block before each next stride, at 32 the last layer."""
        form = Form(self.norm, dtype=self.dtype)
        x = standardise(images, self.mean, self.std)
        stem = ConvNorm(divisible(32 * self.width), form, 3, 2, activation="relu6", name="stem")
        x = stem(x, train=train)
        maps = walk(x, self.rows(), form, output_stride=self.output_stride, train=train)
        if self.last:
            wide = divisible(1280 * max(1.0, self.width))
            last = ConvNorm(wide, form, activation="relu6", name="last")
            maps[max(maps)] = checkpoint_name(last(maps[max(maps)], train=train), MAP)
        return maps

    def rows(self) -> tuple[Row, ...]:
        """The blocks of the table, at this width."""
        if self.width <= 0 or min(map(min, self.table), default=0) < 1:
            raise InputError(
                "MobileNetV2 wants a width above 0 and a table of numbers of at least 1; got "
                f"{self.width} and {self.table}"
            )
        rows, inputs = [], divisible(32 * self.width)
        for stage, (t, c, n, s) in enumerate(self.table, 1):
            channels = divisible(c * self.width)
            for i in range(1, n + 1):
                name, stride = f"stage{stage}_block{i}", s if i == 1 else 1
                rows.append(Row(name, 3, inputs, t * inputs, channels, stride, "relu6"))
                inputs = channels
        return tuple(rows)

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis (stride 32: 491)."""
        return receptive_fields(self.rows(), self.output_stride)


class MobileNetV3(nn.Module):
    """Inverted residuals found by search, some with squeeze-and-excitation and hard swish.

    Attributes:
      table: kernel, expanded channels, channels, squeeze-and-excitation, RE or HS (ReLU or hard
        swish), stride of every block, as in Tables 1 and 2.
      stem: channels of the first convolution.
      output_stride: 16 or 8 keep what is coarser at that stride by dilation.
      epsilon, momentum: of the norm; torchvision's. timm has 1e-5 and 0.9.
      padding: torchvision's and timm's; "same", with epsilon 1e-3, mean and std of 0.5, in timm's
        `tf_` models.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    table: tuple[tuple[int, int, int, bool, Literal["RE", "HS"], int], ...] = LARGE
    stem: int = 16
    output_stride: Literal[8, 16, 32] = 32
    norm: NormKind = "batch"
    epsilon: float = 1e-3
    momentum: float = 0.99
    padding: Literal["symmetric", "same"] = "symmetric"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns maps by stride: the last block before each next stride (in V3-small the stem at
        2), at 32 the 1x1 convolution behind the blocks, as timm, torchvision and smp have it."""
        form = Form(self.norm, self.dtype, self.epsilon, self.momentum, self.padding)
        x = standardise(images, self.mean, self.std)
        stem = ConvNorm(self.stem, form, 3, 2, activation="hard_swish", name="stem")
        x = stem(x, train=train)
        maps = walk(x, self.rows(), form, output_stride=self.output_stride, train=train)
        wide = 6 * maps[max(maps)].shape[-1]
        last = ConvNorm(wide, form, activation="hard_swish", name="last")
        maps[max(maps)] = checkpoint_name(last(maps[max(maps)], train=train), MAP)
        return maps

    def rows(self) -> tuple[Row, ...]:
        """The blocks of the table; those of equal channels are a stage."""
        numbers = [n for row in self.table for n in row if not isinstance(n, bool | str)]
        if min(numbers, default=0) < 1:
            raise InputError(
                f"MobileNetV3 wants a table of numbers of at least 1; got {self.table}"
            )
        rows, stage, inputs = [], 0, self.stem
        for kernel, expanded, channels, squeeze, nonlinearity, stride in self.table:
            new = not rows or channels != inputs
            stage, block = (stage + 1, 1) if new else (stage, block + 1)
            activation = {"RE": "relu", "HS": "hard_swish"}[nonlinearity]
            squeezed = divisible(expanded / 4) if squeeze else 0
            name = f"stage{stage}_block{block}"
            rows.append(Row(name, kernel, inputs, expanded, channels, stride, activation, squeezed))
            inputs = channels
        return tuple(rows)

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis, but for
        squeeze-and-excitation."""
        return receptive_fields(self.rows(), self.output_stride)


def mobilenet_v2(
    width: float = 1.0, norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> MobileNetV2:
    """2,223,872 parameters at width 1."""
    return MobileNetV2(width=width, norm=norm, output_stride=output_stride)


def mobilenet_v3_small(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> MobileNetV3:
    """927,008 parameters."""
    return MobileNetV3(SMALL, norm=norm, output_stride=output_stride)


def mobilenet_v3_large(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> MobileNetV3:
    """2,971,952 parameters."""
    return MobileNetV3(LARGE, norm=norm, output_stride=output_stride)
