"""One small network for every level of a pyramid: RPN, RetinaNet's subnets, mask proposals.

What it gives for a level are rows: cells by row and column, then the kinds of a cell.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from encdec.anchors import Anchors, pyramid, squares
from encdec.arrays import Dtype, Map, Maps
from encdec.errors import InputError
from encdec.heads import check_classes
from encdec.layers import Conv, Norm, NormKind, he_normal

PYRAMID = pyramid()
"""FPN's: one area for each of P2 … P6, three ratios (§4.1)."""

RETINANET = pyramid(strides=(8, 16, 32, 64, 128), octaves=(0.0, 1 / 3, 2 / 3))
"""RetinaNet's: P3 … P7, three areas an octave, three ratios (§4)."""

Levels = dict[int, Float[Array, "b _ ..."]]
"""Rows of each level by its stride, (b, h w kinds, …)."""


def rows(x: Map, values: int) -> Float[Array, "b n {values}"]:
    """(b, h, w, kinds values) as (b, h w kinds, values)."""
    return x.reshape(x.shape[0], -1, values)


def placed(anchors: Anchors, maps: Maps) -> dict[int, Float[Array, "n 4"]]:
    """The anchors of every map.

    Raises:
      InputError: the anchors are of other levels than the maps.
    """
    given, wanted = sorted(maps), sorted(stride for stride, _ in anchors.kinds)
    if given != wanted:
        raise InputError(
            f"the decoder gives maps of strides {_listed(given)}, the anchors are of "
            f"{_listed(wanted)}: give both the same"
        )
    found = anchors.on({stride: x.shape[1:3] for stride, x in maps.items()})
    return {stride: jnp.asarray(boxes) for stride, boxes in found.items()}


def _listed(strides: list[int]) -> str:
    return ", ".join(map(str, strides))


def check_width(maps: Maps) -> None:
    """Raises InputError unless all maps have one width."""
    if len({x.shape[-1] for x in maps.values()}) != 1:
        widths = {stride: maps[stride].shape[-1] for stride in sorted(maps)}
        raise InputError(
            f"a head for all levels wants maps of one width; got {widths}: use a decoder that "
            "projects, FPN, or a head for each level, PerLevel"
        )


class Dense(nn.Module):
    """Classes and box deltas of every cell and kind, from convolutions that all levels share.

    Attributes:
      classes: of the logits: sigmoids have none for the background, a softmax has it at 0.
      anchors: that classes and deltas are of; as many a cell on every level.
      depth: 3x3 convolutions with ReLU before the ones that predict; 4 in RetinaNet, 1 in an RPN.
      channels: of these.
      together: they are the same for classes and boxes (RPN), or each has its own.
      kernel: size of the convolutions that predict: 3 in RetinaNet, 1 in an RPN.
      prior: probability that a sigmoid starts with: its bias is -log((1 - prior) / prior).
      start: deviation of the Gaussian that every kernel starts with (RetinaNet §4.1).
      box_start: that of the kernel that predicts deltas.
      norm: before each ReLU; of a batch it would mix the levels.
    """

    classes: int = 20
    anchors: Anchors = RETINANET
    depth: int = 4
    channels: int = 256
    together: bool = False
    kernel: int = 3
    prior: float = 0.01
    start: float = 0.01
    box_start: float = 0.01
    norm: NormKind = "none"
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        if self.depth < 0 or self.channels < 1:
            raise InputError(
                "Dense wants channels of at least 1 and no negative depth; got "
                f"{self.channels} and {self.depth}"
            )
        if self.kernel % 2 == 0 or not 0 < self.prior < 1:
            raise InputError(
                "Dense wants an odd kernel and a prior between 0 and 1; got "
                f"{self.kernel} and {self.prior}"
            )
        if self.norm == "batch":
            raise InputError('Dense wants norm="group" or "none": all levels share its layers')
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Levels]:
        """Returns by stride "class" (b, h w kinds, classes), "box" (b, h w kinds, 4), "anchors".

        Deltas are dx, dy, dw, dh from the anchors, (h w kinds, 4). The maps must have one width.
        """
        check_width(maps)
        anchors, kinds = placed(self.anchors, maps), self.kinds(tuple(maps))
        towers = [self.tower(part) for part in ([""] if self.together else ["class_", "box_"])]
        bias = nn.initializers.constant(-math.log((1 - self.prior) / self.prior))
        scores = self.conv("class_score", kinds * self.classes, self.kernel, bias=bias)
        deltas = self.conv("box_deltas", kinds * 4, self.kernel, self.box_start)
        outputs: dict[str, Levels] = {"class": {}, "box": {}, "anchors": anchors}
        for stride in sorted(maps):
            ends = []
            for tower in towers:
                x = maps[stride]
                for conv, norm in tower:
                    x = norm(conv(x), train=train)
                ends.append(x)
            outputs["class"][stride] = rows(scores(ends[0]), self.classes)
            outputs["box"][stride] = rows(deltas(ends[-1]), 4)
        return outputs

    @nn.nowrap
    def kinds(self, strides: tuple[int, ...]) -> int:
        """Anchors of a cell, on each of these levels."""
        counts = {stride: self.anchors.per_cell(stride) for stride in sorted(strides)}
        if len(set(counts.values())) != 1:
            raise InputError(
                f"a head for all levels wants as many anchors a cell on each; got {counts}: use a "
                "head for each level, PerLevel"
            )
        return min(counts.values())

    @nn.nowrap
    def tower(self, part: str) -> list[tuple[nn.Module, nn.Module]]:
        """Convolutions, each with its norm and ReLU."""
        return [
            (
                self.conv(f"{part}conv{i}", self.channels, 3, use_bias=self.norm == "none"),
                Norm(self.norm, relu=True, dtype=self.dtype, name=f"{part}norm{i}"),
            )
            for i in range(1, self.depth + 1)
        ]

    @nn.nowrap
    def conv(
        self,
        name: str,
        channels: int,
        kernel: int,
        start: float | None = None,
        bias: nn.initializers.Initializer = nn.initializers.zeros,
        use_bias: bool = True,
    ) -> nn.Module:
        return Conv(
            channels,
            (kernel, kernel),
            padding=kernel // 2,
            use_bias=use_bias,
            kernel_init=nn.initializers.normal(self.start if start is None else start),
            bias_init=bias,
            dtype=self.dtype,
            name=name,
        )

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one row, by stride of the maps."""
        return dict.fromkeys(strides, self.kernel + 2 * self.depth)


def rpn(anchors: Anchors = PYRAMID, channels: int = 256) -> Dense:
    """The region proposal network's head (FPN §4.1): 593,935 parameters on maps of 256 channels.

    One 3x3 convolution, then objectness (one sigmoid) and deltas by 1x1. Starts as in the authors'
    later code, Detectron: deviation 0.01, of the deltas 0.001; torchvision has 0.01 for all.
    """
    return Dense(
        1, anchors, depth=1, channels=channels, together=True, kernel=1, prior=0.5, box_start=0.001
    )


class MaskMLP(nn.Module):
    """Mask and score of every cell (FPN §6): a k x k convolution with ReLU, then 1x1 siblings.

    Attributes:
      kernels: one network, a kind of a cell, for each: (5,) has 1,739,973 parameters on maps of
        128 channels; (7,), for objects √2 times as large, 3,312,837; (5, 7) has both.
      channels: of the hidden layer.
      side: of the mask, in pixels of its own.
      scale: longer side, in cells, of the objects that the first kernel is for, 32 pixels on P2;
        those of the next one are √2 times as large.
    """

    kernels: tuple[int, ...] = (5,)
    channels: int = 512
    side: int = 14
    scale: float = 8.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        if not self.kernels or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise InputError(f"MaskMLP wants one or more odd kernels; got {self.kernels}")
        if self.side < 1 or self.channels < 1 or self.scale <= 0:
            raise InputError(
                "MaskMLP wants a side and channels of 1 or more and a scale above 0; got "
                f"{self.side}, {self.channels} and {self.scale}"
            )
        super().__post_init__()

    @property
    def classes(self) -> int:
        """Logits of a score: an object, of whatever class."""
        return 1

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Levels]:
        """Returns by stride "class", (b, h w kinds, 1), and "mask", (b, h w kinds, side, side).

        Both are logits; a kind is a kernel. "anchors", (h w kinds, 4), are squares of the size of
        the kind's objects; masks reach beyond them (`encdec.tasks.masks`).
        """
        check_width(maps)
        anchors = squares(self.scale, tuple(sorted(maps)), len(self.kernels))
        area, outputs = self.side**2, {"class": {}, "mask": {}, "anchors": placed(anchors, maps)}
        layers = [
            (
                self.conv(f"conv{k}", self.channels, k),
                self.conv(f"score{k}", 1, 1),
                self.conv(f"mask{k}", area, 1),
            )
            for k in self.kernels
        ]
        for stride in sorted(maps):
            hidden = [nn.relu(conv(maps[stride])) for conv, _, _ in layers]
            pairs = list(zip(hidden, layers, strict=True))
            scores = jnp.concatenate([score(x) for x, (_, score, _) in pairs], -1)
            masks = jnp.concatenate([mask(x) for x, (_, _, mask) in pairs], -1)
            outputs["class"][stride] = rows(scores, 1)
            flat = rows(masks, area)
            outputs["mask"][stride] = flat.reshape(*flat.shape[:2], self.side, self.side)
        return outputs

    @nn.nowrap
    def conv(self, name: str, channels: int, kernel: int) -> nn.Module:
        return Conv(
            channels,
            (kernel, kernel),
            padding=kernel // 2,
            kernel_init=nn.initializers.normal(0.01) if kernel == 1 else he_normal,
            dtype=self.dtype,
            name=name,
        )

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one row, by stride of the maps."""
        return dict.fromkeys(strides, max(self.kernels))
