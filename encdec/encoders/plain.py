"""U-Net's contracting path (Ronneberger, Fischer, Brox 2015, §2 and Figure 1)."""

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Maps
from encdec.errors import InputError
from encdec.layers import ConvNormRelu, NormKind, max_pool, standardise


class Plain(nn.Module):
    """Two 3x3 convolutions with ReLU, then 2x2 max pooling, again and again.

    Attributes:
      channels: width of each level; (64, 128, 256, 512, 1024) in Figure 1.
      padded: keep sizes; otherwise the paper's valid convolutions, which need inputs whose every
        pooled size is even.
      norm: none in the paper.
      mean, std: of the pixels, by channel, in [0, 1]; subtracted and divided first.
      grey: average the image's channels first: the paper's nets see one.
      dropout: share of values dropped after the last two levels (§3.1: at the end of the path); the
        skip of the last but one carries it too.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    padded: bool = True
    norm: NormKind = "none"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    grey: bool = False
    dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns the maps before each pooling: strides 1, 2, 4, …"""
        if min(self.channels, default=0) < 1:
            raise InputError(f"Plain wants channels of at least 1; got {self.channels}")
        for axis, size in zip(("height", "width"), images.shape[1:3], strict=True):
            if (good := self.next_good_size(size)) != size:
                raise InputError(
                    f"{axis} {size} does not fit the unpadded net: a pooling would see an odd or "
                    f"empty map; the next good size is {good}"
                )
        if self.grey:
            images = images.mean(-1, keepdims=True)
        x, maps = standardise(images, self.mean, self.std), {}
        for level, width in enumerate(self.channels):
            if level:
                x = max_pool(x)
            for i in (1, 2):
                block = ConvNormRelu(
                    width,
                    self.norm,
                    int(self.padded),
                    dtype=self.dtype,
                    name=f"conv{i}_s{2**level}",
                )
                x = block(x, train=train)
            if level >= len(self.channels) - 2:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = maps[2**level] = checkpoint_name(x, MAP)
        return maps

    def next_good_size(self, size: int) -> int:
        """Smallest good input size >= `size`; every size is good when padded.

        Unpadded, every level down loses four cells to its two convolutions before it is halved:
        good sizes are 16k + 60 for the five levels of Figure 1. At least 8 cells must reach the
        bottom (k >= 8) for anything to be left on the way up.
        """
        if self.padded:
            return size
        depth = len(self.channels) - 1
        step, lost = 2**depth, 4 * (2**depth - 1)
        return lost + step * max(8, -(-(size - lost) // step))

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis."""
        field, fields = 1, {}
        for level in range(len(self.channels)):
            field += (2 ** (level - 1) if level else 0) + 4 * 2**level
            fields[2**level] = field
        return fields
