"""FPN: features of one width are carried up, added, read on every level (Lin et al. 2017, §3)."""

from typing import Literal

from flax import linen as nn

from encdec import layers
from encdec.arrays import Map
from encdec.decoders.topdown import Copy, Place, TopDown

xavier_uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""U(-sqrt(3/N), sqrt(3/N)), N incoming nodes: the authors' fill for the pyramid."""


class Lateral(Place):
    """1x1 convolution from a skip to the pyramid's width; linear, as is the whole pyramid."""

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool, merged: bool = True) -> Map:
        conv = nn.Conv(channels, (1, 1), kernel_init=xavier_uniform, dtype=self.dtype, name="conv")
        return conv(x)

    def reach(self, cells: int) -> int:
        return cells


class Nearest(Place):
    """Nearest-neighbour upsampling."""

    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        return layers.nearest(x, factor)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 1


class Smooth(Place):
    """3x3 convolution on the merged map: reduces the aliasing of upsampling (§3)."""

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool, merged: bool = True) -> Map:
        conv = layers.Conv(
            channels,
            (3, 3),
            padding=1,
            kernel_init=xavier_uniform,
            dtype=self.dtype,
            name="conv",
        )
        return conv(x)

    def reach(self, cells: int) -> int:
        return cells + 2


class FPN(TopDown):
    """1x1 laterals, nearest upsampling, sums; a 3x3 convolution on every level, outside the path.

    Attributes:
      channels: d of every level, 256 in the paper.
      strides: (4, 8, 16, 32) are C2 … C5; the result holds P2 … P5.
    """

    strides: tuple[int, ...] = (4, 8, 16, 32)
    channels: int | tuple[int, ...] = 256
    lateral: Place = Lateral()
    upsample: Place = Nearest()
    merge: Literal["add", "concatenate", "skip", "top"] = "add"
    refine: Place = Copy()
    output: Place = Smooth()
    levels: Literal["finest", "every"] = "every"
