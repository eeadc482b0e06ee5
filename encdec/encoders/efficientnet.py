"""EfficientNet (Tan and Le 2019): one searched network, B0, and its scaled versions."""

import math
from typing import Literal

from flax import linen as nn

from encdec.arrays import Dtype, Images, Maps
from encdec.encoders.inverted import (
    Activation,
    ConvNorm,
    Form,
    Padding,
    Row,
    divisible,
    receptive_fields,
    walk,
)
from encdec.errors import InputError
from encdec.layers import NormKind, standardise


class EfficientNet(nn.Module):
    """Inverted residuals with squeeze-and-excitation and swish.

    The defaults are torchvision's B0, which is timm's. Weights that come from TensorFlow want
    other fields: epsilon 1e-3; momentum 0.99 (0.9 in timm); padding "same" in timm's `tf_` models,
    the image's size (B0 … B4: 224, 240, 260, 300, 380) in efficientnet_pytorch and in
    segmentation_models.pytorch's `efficientnet-b…`.

    Attributes:
      table: t, k, c, n, s of every stage, as in Table 1: expansion, kernel, channels, blocks,
        stride of the first.
      width, depth: multipliers of the channels, rounded to multiples of 8, and of the blocks,
        rounded up (§4).
      squeeze: with squeeze-and-excitation.
      taps: "stem", and blocks ("stage5_block1"), whose maps are given, not those of the last block
        of their stride. The stem's is segmentation_models.pytorch's map of stride 2, with twice
        the channels of the first stage's; timm has ().
      drop_path: stochastic depth: the share of images that skip the last block; growing from 0 in
        the first. 0.2 in §5, and 0 here, so that training is torch's on the same weights.
      output_stride: 16 or 8 keep what is coarser at that stride by dilation.
      epsilon, momentum: of the norm.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    table: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    )
    width: float = 1.0
    depth: float = 1.0
    squeeze: bool = True
    activation: Activation = "swish"
    taps: tuple[str, ...] = ("stem",)
    drop_path: float = 0.0
    output_stride: Literal[8, 16, 32] = 32
    norm: NormKind = "batch"
    epsilon: float = 1e-5
    momentum: float = 0.9
    padding: Padding = "symmetric"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns maps by stride: the stem at 2, the last blocks of 4, 8, 16 and 32 (`taps`).

        The 1x1 convolution before the classifier is not there: timm and smp leave it out too.
        """
        if self.padding not in ("symmetric", "same") and any(n % 32 for n in images.shape[1:3]):
            raise InputError(
                f"padding={self.padding} wants sides that 32 divides; got {images.shape[1]}x"
                f'{images.shape[2]}: pad the image, or take padding="same"'
            )
        form = Form(self.norm, self.dtype, self.epsilon, self.momentum, self.padding)
        x = standardise(images, self.mean, self.std)
        wide = divisible(32 * self.width)
        stem = ConvNorm(wide, form, 3, 2, activation=self.activation, name="stem")
        return walk(
            stem(x, train=train),
            self.rows(),
            form,
            output_stride=self.output_stride,
            train=train,
            drop_path=self.drop_path,
            taps=self.taps,
        )

    def rows(self) -> tuple[Row, ...]:
        """The blocks of the table, scaled."""
        if min(self.width, self.depth) <= 0 or min(map(min, self.table), default=0) < 1:
            raise InputError(
                "EfficientNet wants a width and a depth above 0 and a table of numbers of at least "
                f"1; got {self.width}, {self.depth} and {self.table}"
            )
        rows, inputs = [], divisible(32 * self.width)
        for stage, (t, k, c, n, s) in enumerate(self.table, 1):
            channels = divisible(c * self.width)
            for i in range(1, math.ceil(n * self.depth) + 1):
                squeezed = inputs // 4 if self.squeeze else 0
                name, stride, act = f"stage{stage}_block{i}", s if i == 1 else 1, self.activation
                wide = t * inputs
                rows.append(Row(name, k, inputs, wide, channels, stride, act, squeezed, "swish"))
                inputs = channels
        if unknown := set(self.taps) - {"stem", *(row.name for row in rows)}:
            raise InputError(
                f"taps wants the stem or blocks up to {rows[-1].name}; got {sorted(unknown)}"
            )
        return tuple(rows)

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis, but for
        squeeze-and-excitation."""
        return receptive_fields(self.rows(), self.output_stride, self.taps)

    def next_good_size(self, size: int) -> int:
        """The smallest side that it takes and that is not below `size`."""
        return size if self.padding in ("symmetric", "same") else -(-size // 32) * 32


def efficientnet_lite0(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """2,958,848 parameters: B0 without squeeze-and-excitation, with ReLU6.

    The padding, epsilon and pixels in [-1, 1] are TensorFlow's, whence its weights come.
    """
    return EfficientNet(
        squeeze=False,
        activation="relu6",
        output_stride=output_stride,
        norm=norm,
        epsilon=1e-3,
        momentum=0.99,
        padding="same",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def efficientnet_b0(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """3,595,388 parameters."""
    return EfficientNet(norm=norm, output_stride=output_stride)


def efficientnet_b1(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """6,101,024 parameters."""
    return EfficientNet(depth=1.1, norm=norm, output_stride=output_stride)


def efficientnet_b2(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """7,202,562 parameters."""
    return EfficientNet(width=1.1, depth=1.2, norm=norm, output_stride=output_stride)


def efficientnet_b3(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """10,103,336 parameters."""
    return EfficientNet(width=1.2, depth=1.4, norm=norm, output_stride=output_stride)


def efficientnet_b4(
    norm: NormKind = "batch", output_stride: Literal[8, 16, 32] = 32
) -> EfficientNet:
    """16,742,216 parameters."""
    return EfficientNet(width=1.4, depth=1.8, norm=norm, output_stride=output_stride)
