"""FCN: class scores are carried up and added (Long, Shelhamer, Darrell 2015, §4)."""

from typing import Literal

from flax import linen as nn

from encdec.arrays import Map
from encdec.decoders.topdown import Copy, Place, TopDown
from encdec.layers import ConvTranspose


class Score(Place):
    """1x1 convolution from features to class scores, zero at the start (§4.2)."""

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool) -> Map:
        score = nn.Conv(
            channels, (1, 1), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv"
        )
        return score(x)

    def reach(self, cells: int) -> int:
        return cells


class Deconvolution(Place):
    """Transposed convolution that starts as bilinear interpolation and learns (§3.3)."""

    @nn.compact
    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        up = ConvTranspose(
            channels,
            kernel=2 * factor,
            stride=factor,
            bias=False,
            start="bilinear",
            dtype=self.dtype,
            name="conv",
        )
        return up(x)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 2


class FCN(TopDown):
    """Score every used map, upsample, add; nothing nonlinear on the way up.

    Attributes:
      channels: classes: what is carried up are scores.
      strides: (32,) is FCN-32s, (16, 32) FCN-16s, (8, 16, 32) FCN-8s.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    channels: int | tuple[int, ...] = 21
    lateral: Place = Score()
    upsample: Place = Deconvolution()
    merge: Literal["add", "concatenate", "skip", "top"] = "add"
    refine: Place = Copy()
    output: Place = Copy()
    levels: Literal["finest", "every"] = "finest"
