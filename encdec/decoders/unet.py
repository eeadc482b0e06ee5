"""U-Net: wide features are carried up, concatenated and convolved (Ronneberger et al. 2015, §2)."""

from typing import Literal

from flax import linen as nn

from encdec.arrays import Map
from encdec.decoders.topdown import Copy, Place, TopDown
from encdec.layers import ConvNormRelu, ConvTranspose, NormKind


class UpConv(Place):
    """ "Up-convolution": transposed, kernel and stride equal (2x2 in the paper).

    Attributes:
      start: "gaussian" as in the paper; "nearest", a random projection of each cell, repeated over
        its block: no checkerboard to unlearn.
    """

    start: Literal["gaussian", "nearest"] = "gaussian"

    @nn.compact
    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        up = ConvTranspose(
            channels, factor, factor, start=self.start, dtype=self.dtype, name="conv"
        )
        return up(x)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 1


class DoubleConv(Place):
    """Two 3x3 convolutions, each followed by a ReLU.

    Attributes:
      padded: keep the size; the paper's convolutions are unpadded.
      norm: none in the paper.
    """

    padded: bool = True
    norm: NormKind = "none"

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool) -> Map:
        for i in (1, 2):
            conv = ConvNormRelu(channels, self.norm, self.padded, dtype=self.dtype, name=f"conv{i}")
            x = conv(x, train=train)
        return x

    def reach(self, cells: int) -> int:
        return cells + 4


class UNet(TopDown):
    """Up-convolve (to half the channels in the paper), concatenate the skip, convolve twice.

    Attributes:
      channels: width of each level below the coarsest, coarse to fine; (512, 256, 128, 64) in
        Figure 1.
      strides: (1, 2, 4, 8, 16) in Figure 1. An encoder that starts at stride 2 takes
        (2, 4, 8, 16, 32) and predicts there; with `finest=1` and a fifth width, after a last
        up-convolution that has no skip.
    """

    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    channels: int | tuple[int, ...] = (512, 256, 128, 64)
    lateral: Place = Copy()
    upsample: Place = UpConv()
    merge: Literal["add", "concatenate", "skip", "top"] = "concatenate"
    refine: Place = DoubleConv()
    output: Place = Copy()
    levels: Literal["finest", "every"] = "finest"
