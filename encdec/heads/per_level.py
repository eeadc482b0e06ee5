"""A head of its own for each level, over maps of any width: SSD's (Liu et al. 2016, §2.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from encdec.anchors import Anchors, ssd300
from encdec.arrays import Dtype, Map, Maps
from encdec.heads import check_classes
from encdec.heads.dense import Levels, placed, rows
from encdec.layers import Conv

xavier = nn.initializers.xavier_uniform()


class Rescale(nn.Module):
    """Every cell's features divided by their L2 norm, times a learned scale a channel (§3.1).

    Attributes:
      start: the scale's first value.
    """

    start: float = 20.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        scale = self.param("scale", nn.initializers.constant(self.start), x.shape[-1:], jnp.float32)
        wide = x.astype(jnp.float32)
        # Where all features are 0, as after a ReLU, the floor keeps the gradient finite.
        inverse = lax.rsqrt(jnp.maximum((wide**2).sum(-1, keepdims=True), 1e-10))
        return (wide * inverse * scale[None, None, None]).astype(self.dtype or x.dtype)


class PerLevel(nn.Module):
    """Classes and box deltas by one 3x3 convolution each, of each level's own.

    Attributes:
      classes: of the logits: of SSD's softmax one more than objects have, the background at 0.
      anchors: that classes and deltas are of, SSD's "default boxes".
      rescale: first scale of the finest map's features, whose norms are made equal; 0: as they are.
        20 in SSD, for conv4_3.
      start: deviation of the Gaussian that kernels start with; 0: Xavier's uniform (SSD §3.1).
    """

    classes: int = 21
    anchors: Anchors = ssd300()
    rescale: float = 0.0
    start: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Levels]:
        """Returns by stride "class" (b, h w kinds, classes), "box" (b, h w kinds, 4), "anchors".

        Deltas are dx, dy, dw, dh from the anchors, (h w kinds, 4).
        """
        outputs: dict[str, Levels] = {"class": {}, "box": {}, "anchors": placed(self.anchors, maps)}
        for stride in sorted(maps):
            count = self.anchors.per_cell(stride)
            x = maps[stride]
            if self.rescale and stride == min(maps):
                x = Rescale(self.rescale, self.dtype, name="rescale")(x)
            scores = self.conv(f"class_s{stride}", count * self.classes)(x)
            outputs["class"][stride] = rows(scores, self.classes)
            outputs["box"][stride] = rows(self.conv(f"box_s{stride}", count * 4)(x), 4)
        return outputs

    @nn.nowrap
    def conv(self, name: str, channels: int) -> nn.Module:
        init = nn.initializers.normal(self.start) if self.start else xavier
        return Conv(channels, (3, 3), padding=1, kernel_init=init, dtype=self.dtype, name=name)

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one row, by stride of the maps."""
        return dict.fromkeys(strides, 3)
