"""FPN: features of one width are carried up, added, read on every level (Lin et al. 2017, §3)."""

from typing import Literal

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec import layers
from encdec.arrays import MAP, Dtype, Map, Maps
from encdec.decoders.topdown import Copy, Place, TopDown
from encdec.errors import InputError

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
        return conv_3x3(channels, 1, self.dtype)(x)

    def reach(self, cells: int) -> int:
        return cells + 2


def conv_3x3(channels: int, stride: int, dtype: Dtype | None) -> nn.Module:
    """A level's own convolution."""
    return layers.Conv(
        channels,
        (3, 3),
        stride,
        padding=1,
        kernel_init=xavier_uniform,
        dtype=dtype,
        name="conv",
    )


class Coarser(Place):
    """A level above the coarsest, made of the one before; called with `first`, whether that is the
    coarsest itself.

    Attributes:
      levels: how many are made so, each of the one before.
    """

    levels: int = 1


class Subsample(Coarser):
    """Every other cell: P6 of P5, for anchors of 512², so for the RPN alone (§4.1)."""

    def __call__(self, x: Map, *, channels: int, train: bool, first: bool) -> Map:
        return x[:, ::2, ::2]

    def reach(self, cells: int) -> int:
        return 2 * cells - 1


class Strided(Coarser):
    """3x3 convolution of stride 2; a ReLU before all but the first (RetinaNet, §4).

    Attributes:
      levels: two are P6 and P7.
      source: the first reads the coarsest encoder map, C5, as in the paper; or the coarsest level
        of the pyramid, P5, as torchvision's `retinanet_resnet50_fpn` does.
    """

    levels: int = 2
    source: Literal["encoder", "pyramid"] = "encoder"

    @nn.compact
    def __call__(self, x: Map, *, channels: int, train: bool, first: bool) -> Map:
        return conv_3x3(channels, 2, self.dtype)(x if first else nn.relu(x))

    def reach(self, cells: int) -> int:
        return 2 * cells + 1


class FPN(TopDown):
    """1x1 laterals, nearest upsampling, sums; a 3x3 convolution on every level, outside the path.

    Attributes:
      channels: d of every level, 256 in the paper.
      strides: (4, 8, 16, 32) are C2 … C5; the result holds P2 … P5.
      coarser: `Subsample` or `Strided`, for levels above the coarsest of `strides`: P6, …; none by
        default. Their parameters are `output_s64`, …
    """

    strides: tuple[int, ...] = (4, 8, 16, 32)
    channels: int | tuple[int, ...] = 256
    lateral: Place = Lateral()
    upsample: Place = Nearest()
    merge: Literal["add", "concatenate", "skip", "top"] = "add"
    refine: Place = Copy()
    output: Place = Smooth()
    levels: Literal["finest", "every"] = "every"
    coarser: Coarser = Subsample(levels=0)

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        """Returns maps by stride: (b, ceil(h / s), ceil(w / s), channels)."""
        outputs, above = super().__call__(maps, train=train), self.above()
        top, width = self.walk()[0]
        x = maps[top] if self.reads_encoder() else outputs.get(top)
        for stride in above:
            dtype = self.coarser.dtype or self.dtype
            step = self.coarser.clone(parent=self, name=f"output_s{stride}", dtype=dtype)
            x = step(x, channels=width, train=train, first=stride == 2 * top)
            outputs[stride] = checkpoint_name(x, MAP)
        return outputs

    @nn.nowrap
    def reads_encoder(self) -> bool:
        """Whether the levels above are made of an encoder map."""
        return isinstance(self.coarser, Strided) and self.coarser.source == "encoder"

    @nn.nowrap
    def above(self) -> tuple[int, ...]:
        """Strides of the levels that `coarser` makes, fine to coarse."""
        top, levels = max(self.strides), self.coarser.levels
        if levels and top not in super().outputs() and not self.reads_encoder():
            raise InputError(
                f'coarser wants the pyramid\'s map of stride {top}, got levels="finest": set '
                'levels="every", or coarser.levels=0'
            )
        return tuple(top * 2**i for i in range(1, levels + 1))

    @nn.nowrap
    def outputs(self) -> tuple[int, ...]:
        """Strides of the maps that are returned, fine to coarse."""
        return super().outputs() + self.above()

    @nn.nowrap
    def receptive_field(self, fields: dict[int, int], cells: dict[int, int]) -> int:
        """Input pixels behind that many adjacent cells of the returned maps; see `TopDown`."""
        needed, top = 0, max(self.strides)
        for stride in reversed(self.above()):
            needed = self.coarser.reach(max(needed, cells.get(stride, 0)))
        if self.reads_encoder():
            own = fields[top] + (needed - 1) * top
            return max(own, super().receptive_field(fields, cells))
        return super().receptive_field(fields, cells | {top: max(needed, cells.get(top, 0))})


Form = Literal["a", "b", "c", "d", "e", "f"]
FORMS: dict[Form, str] = {
    "a": "C4",
    "b": "C5",
    "c": "FPN",
    "d": "no top-down",
    "e": "no lateral",
    "f": "finest level",
}
"""The rows of the paper's Tables 1 and 2."""


def ablated(form: Form, whole: FPN) -> FPN:
    """The pyramid of such a row; those of one level (a, b, f) have none above it.

    Unlike the paper's, C4 and C5 pass a 1x1 and a 3x3 convolution to the pyramid's width, so that
    one head fits all.
    """
    width = whole.channels
    return {
        "a": FPN((16,), width),
        "b": FPN((32,), width),
        "c": whole,
        "d": whole.clone(merge="skip"),
        "e": whole.clone(merge="top"),
        "f": FPN(channels=width, levels="finest"),
    }[form]
