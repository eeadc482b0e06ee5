"""Ways up that none of the three papers takes: for hybrids and for comparisons."""

from typing import Literal

from flax import linen as nn

from encdec import layers
from encdec.arrays import Map
from encdec.decoders.topdown import Place
from encdec.layers import he_normal


class Bilinear(Place):
    """Bilinear upsampling with half-pixel centres; without weights, channels stay as they are."""

    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        return layers.bilinear(x, factor)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 2


class PixelShuffle(Place):
    """3x3 convolution to factor² times the channels, which become the pixels of a block: the
    sub-pixel convolution of Shi et al. (2016, §2.2). With a 1x1 convolution it would be the 2x2
    up-convolution of U-Net.

    Attributes:
      start: "nearest", one draw for all pixels of a block (Aitken et al. 2017), or "gaussian".
    """

    start: Literal["gaussian", "nearest"] = "nearest"

    @nn.compact
    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        def blocks(key, shape, dtype):
            """He's start; of a block all pixels alike, if they start so."""
            if self.start == "gaussian":
                return he_normal(key, shape, dtype)
            kernel = he_normal(key, (*shape[:3], channels), dtype)
            return kernel.repeat(factor**2, -1)

        x = layers.Conv(
            channels * factor**2,
            (3, 3),
            padding=1,
            kernel_init=blocks,
            dtype=self.dtype,
            name="conv",
        )(x)
        b, h, w, _ = x.shape
        x = x.reshape(b, h, w, channels, factor, factor).transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(b, h * factor, w * factor, channels)

    def reach(self, cells: int, factor: int) -> int:
        return (cells + factor - 2) // factor + 3
