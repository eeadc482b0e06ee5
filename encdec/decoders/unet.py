"""U-Net: wide features are carried up, concatenated and convolved (Ronneberger et al. 2015, §2)."""

from functools import partial
from typing import Literal

from flax import linen as nn

from encdec.arrays import Dtype, Map
from encdec.decoders.topdown import Copy, Place, TopDown
from encdec.layers import ConvNormRelu, ConvTranspose, NormKind


class UpConv(Place):
    """ "Up-convolution": transposed, kernel and stride equal (2x2 in the paper).

    Attributes:
      start: "gaussian" as in the paper; "nearest", a random projection of each cell, repeated over
        its block: no checkerboard to unlearn.
      relu: afterwards; in the authors' released net, not in Figure 1.
      least: channels that it gives at least; the released net keeps 128 at the last level.
    """

    start: Literal["gaussian", "nearest"] = "gaussian"
    relu: bool = False
    least: int = 1

    @nn.compact
    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        width = max(channels, self.least)
        up = ConvTranspose(width, factor, factor, start=self.start, dtype=self.dtype, name="conv")
        return nn.relu(up(x)) if self.relu else up(x)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 1


class Attention(nn.Module):
    """scSE: cells and channels, each weighed by a sigmoid of its own, added (Roy et al. 2018)."""

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        dense = partial(nn.Conv, kernel_size=(1, 1), dtype=self.dtype)
        squeezed = nn.relu(dense(x.shape[-1] // 16, name="squeeze")(x.mean((1, 2), keepdims=True)))
        channel = nn.sigmoid(dense(x.shape[-1], name="excite")(squeezed))
        return x * channel + x * nn.sigmoid(dense(1, name="cells")(x))


class DoubleConv(Place):
    """Two 3x3 convolutions, each followed by a ReLU.

    Attributes:
      padded: keep the size; the paper's convolutions are unpadded.
      norm: none in the paper.
      attention: `Attention` on what was merged and on the result.
    """

    padded: bool = True
    norm: NormKind = "none"
    attention: bool = False

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool, merged: bool = True) -> Map:
        if self.attention and merged:
            x = Attention(self.dtype, name="attention1")(x)
        for i in (1, 2):
            conv = ConvNormRelu(
                channels, self.norm, int(self.padded), dtype=self.dtype, name=f"conv{i}"
            )
            x = conv(x, train=train)
        return Attention(self.dtype, name="attention2")(x) if self.attention else x

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
      levels: "every" returns all levels' maps: deep supervision, with `Pixel(deep=True)`.
    """

    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    channels: int | tuple[int, ...] = (512, 256, 128, 64)
    lateral: Place = Copy()
    upsample: Place = UpConv()
    merge: Literal["add", "concatenate", "skip", "top"] = "concatenate"
    refine: Place = DoubleConv()
    output: Place = Copy()
    levels: Literal["finest", "every"] = "finest"
