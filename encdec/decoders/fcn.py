"""FCN: class scores are carried up and added (Long, Shelhamer, Darrell 2015, §4)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from flax import linen as nn

from encdec.arrays import Map, Maps
from encdec.decoders.topdown import Copy, Place, TopDown
from encdec.errors import InputError
from encdec.layers import ConvTranspose, Upsampling


class Score(Place):
    """1x1 convolution from features to class scores, zero at the start (§4.2)."""

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool, merged: bool = True) -> Map:
        score = nn.Conv(
            channels, (1, 1), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv"
        )
        return score(x)

    def reach(self, cells: int) -> int:
        return cells


class Deconvolution(Place):
    """Transposed convolution of twice the factor, bilinear at the start (§3.3).

    Attributes:
      weights: "learned", as the CVPR paper has those in between (§4.3); "grouped", learned for each
        class alone; "fixed", as in the released nets.
      padded: the result has `factor` times the cells; otherwise every cell that anything falls on.
    """

    weights: Upsampling = "learned"
    padded: bool = True

    @nn.compact
    def __call__(self, x: Map, *, factor: int, channels: int, train: bool) -> Map:
        up = ConvTranspose(
            channels,
            kernel=2 * factor,
            stride=factor,
            bias=False,
            start="bilinear",
            weights=self.weights,
            padding="SAME" if self.padded else "VALID",
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
      scales: fixed factors on the skips before they are scored, coarse to fine; (0.01, 0.0001) is
        FCN-8s "at once".
    """

    strides: tuple[int, ...] = (8, 16, 32)
    channels: int | tuple[int, ...] = 21
    lateral: Place = Score()
    upsample: Place = Deconvolution()
    merge: Literal["add", "concatenate", "skip", "top"] = "add"
    refine: Place = Copy()
    output: Place = Copy()
    levels: Literal["finest", "every"] = "finest"
    scales: tuple[float, ...] = ()

    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        """Returns the finest scores by stride, (b, h, w, classes)."""
        if self.scales and len(self.scales) != len(self.strides) - 1:
            raise InputError(
                f"scales wants one for each skip, {len(self.strides) - 1}; got {self.scales}"
            )
        factors = dict(zip(sorted(self.strides)[-2::-1], self.scales, strict=bool(self.scales)))
        maps = {stride: x * factors.get(stride, 1) for stride, x in maps.items()}
        return super().__call__(maps, train=train)


def crops(origins: Mapping[int, float], kernel: int = 0) -> tuple[tuple[int, ...], int]:
    """Where skips and image lie in what is upsampled over them, if only the image was padded.

    Cell i of a map of stride s is centred on input pixel s i + origin. Cell o of a transposed
    convolution without padding, of kernel k and factor f, is centred on cell (o - (k - 1) / 2) / f
    of its input.

    Args:
      origins: of the maps that are scored, by stride.
      kernel: of the last transposed convolution; twice its factor, the finest stride, if 0.

    Returns:
      The first cell that is wanted of each skip, coarse to fine; and the first of the result, which
      lies on the image's first pixel. (5, 9) and 31 for FCN-8s.

    Raises:
      InputError: cells do not lie on cells.
    """
    levels = sorted(origins, reverse=True)
    place, offsets = origins[levels[0]], []
    for coarser, stride in pairwise(levels):
        place -= stride * (2 * coarser / stride - 1) / 2
        offsets.append((place - origins[stride]) / stride)
    offsets.append(((kernel or 2 * levels[-1]) - 1) / 2 - place)
    if any(offset % 1 for offset in offsets):
        raise InputError(f"crops wants maps whose cells lie on each other; got {offsets} cells")
    return tuple(int(offset) for offset in offsets[:-1]), int(offsets[-1])
