"""Anchors: boxes of fixed sizes over every cell of every level; which truth each is to find."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray

from encdec.boxes import top
from encdec.errors import InputError

Sizes = tuple[tuple[float, float], ...]
"""(height, width) in pixels of every kind of anchor of a cell."""


@dataclass(frozen=True)
class Anchors:
    """Kinds of anchors of a cell, by stride.

    Attributes:
      kinds: of every stride, the sizes (height, width) in pixels.
      offset: of an anchor's centre in its cell: 0 is the cell's corner (Detectron2, torchvision),
        0.5 its middle (SSD).
      rounded: corners to whole pixels around the centre, as torchvision has them.
    """

    kinds: tuple[tuple[int, Sizes], ...]
    offset: float = 0.0
    rounded: bool = False

    def __post_init__(self) -> None:
        strides = [stride for stride, _ in self.kinds]
        sides = [side for _, sizes in self.kinds for size in sizes for side in size]
        if not sides or min(strides) < 1 or min(sides) <= 0 or len(set(strides)) < len(strides):
            raise InputError(
                "anchors wants kinds (stride, ((height, width), ...)), each stride once, all above "
                f"0; got {self.kinds}"
            )

    def per_cell(self, stride: int) -> int:
        """Kinds of a cell of this stride."""
        return len(self.sizes(stride))

    def sizes(self, stride: int) -> Sizes:
        """(height, width) of every kind of this stride.

        Raises:
          InputError: there are none.
        """
        kinds = dict(self.kinds)
        if stride not in kinds:
            raise InputError(
                f"the anchors are of strides {', '.join(map(str, kinds))}, the map is of {stride}: "
                "give the anchors the strides that the decoder gives"
            )
        return kinds[stride]

    def on(self, sizes: dict[int, tuple[int, int]]) -> dict[int, Float32[np.ndarray, "n 4"]]:
        """Anchors of maps with these rows and columns, by stride; constants, not clipped.

        Cells row by row, then the kinds of a cell: n = rows * columns * kinds, as heads have it.
        """
        return {stride: self._level(stride, *size) for stride, size in sizes.items()}

    def _level(self, stride: int, rows: int, columns: int) -> Float32[np.ndarray, "n 4"]:
        half = np.array(self.sizes(stride)) / 2
        around = np.concatenate([-half, half], -1)
        if self.rounded:
            around = np.round(around)
        y, x = ((np.arange(n) + self.offset) * stride for n in (rows, columns))
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 1, 2)
        return (np.tile(centres, 2) + around).reshape(-1, 4).astype(np.float32)


def kinds_of(sides: Sequence[float], ratios: Sequence[float]) -> Sizes:
    """Sizes of area side² and height / width = ratio: for every ratio every side."""
    return tuple((side * ratio**0.5, side / ratio**0.5) for ratio in ratios for side in sides)


def pyramid(
    sides: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
    strides: tuple[int, ...] = (4, 8, 16, 32, 64),
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    octaves: tuple[float, ...] = (0.0,),
    rounded: bool = False,
) -> Anchors:
    """One area for each level, 32² … 512² on P2 … P6, in three ratios (Lin et al. 2017, §4.1).

    RetinaNet has strides 8 … 128 and octaves (0, 1/3, 2/3): sides times 2^octave on the level.
    rounded: sides, cut to whole pixels, and corners as torchvision has them.
    """
    if len(sides) != len(strides):
        raise InputError(
            f"a pyramid of anchors wants one side for each stride, got {len(sides)} sides for "
            f"{len(strides)} strides"
        )
    kinds = []
    for side, stride in zip(sides, strides, strict=True):
        on_level = [side * 2**octave for octave in octaves]
        kinds.append(
            (stride, kinds_of([float(int(s)) if rounded else s for s in on_level], ratios))
        )
    return Anchors(tuple(kinds), rounded=rounded)


def single(
    stride: int,
    sides: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> Anchors:
    """All sides in all ratios on one level: 15 kinds (Lin et al. 2017, Table 1 a, b and f)."""
    return Anchors(((stride, kinds_of(sides, ratios)),))


def squares(cells: float, strides: tuple[int, ...], kinds: int) -> Anchors:
    """Squares of that many cells, each kind √2 times the one before (FPN, appendix A).

    With 8 cells and two kinds, those of mask proposals: 32, 45, 64, 91, … pixels on P2, P3, ….
    """
    sides = tuple(cells * 2 ** (kind / 2) for kind in range(kinds))
    return Anchors(tuple((s, kinds_of([s * side for side in sides], (1.0,))) for s in strides))


def ssd300(sides: tuple[float, ...] = (21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0)) -> Anchors:
    """SSD's default boxes for 300x300: 8,732 at strides 8 … 300 (Liu et al. 2016, §2.2).

    sides: s of the six levels and one more, in pixels. Those of the authors' COCO model, which
    torchvision has too; for VOC (30, 60, 111, 162, 213, 264, 315). A cell has squares of sides s
    and √(s s'), s' of the next level, and the ratios 2 and 1/2, on all levels but the first and
    the last two 3 and 1/3 too. No side is longer than the image.
    """
    strides = (8, 16, 32, 64, 100, 300)
    if len(sides) != len(strides) + 1:
        raise InputError(f"ssd300 wants {len(strides) + 1} sides, got {len(sides)}")
    kinds = []
    for i, stride in enumerate(strides):
        sizes = kinds_of(sides[i : i + 1], (1.0,)) + (((sides[i] * sides[i + 1]) ** 0.5,) * 2,)
        ratios = (1 / 2, 2.0, 1 / 3, 3.0) if i in (1, 2, 3) else (1 / 2, 2.0)
        sizes += kinds_of(sides[i : i + 1], ratios)
        kinds.append((stride, tuple((min(h, 300.0), min(w, 300.0)) for h, w in sizes)))
    return Anchors(tuple(kinds), offset=0.5)


def match(
    iou: Float[Array, "a n"],
    valid: Bool[Array, "n"],
    *,
    high: float,
    low: float,
    best: bool,
    exclusive: bool = False,
) -> tuple[Int32[Array, "a"], Int32[Array, "a"]]:
    """For every anchor of an image the truth it is to find, and whether it is to find one.

    Args:
      iou: of anchors with truth boxes, of which `valid` count.
      high: an anchor is positive if its largest IoU is at least this (RPN 0.7, RetinaNet and SSD
        0.5).
      low: it is negative if that is below this (0.3, 0.4, 0.5), neither in between.
      best: the anchors that overlap a truth box most, ties included, are positive however little
        they do (Ren et al. 2015, §3.1.2). Each keeps the truth that it overlaps most itself, as in
        torchvision.
      exclusive: instead each truth box owns its best anchor, the first of equals (Liu et al. 2016,
        §2.2). An anchor that is the best of several belongs to the last of them.

    Returns:
      index of the truth box with the largest IoU, 0 if there is none; label: 1 positive,
      0 negative, -1 neither.
    """
    # Stored once: computed again for the comparison below, it could differ in the last bit.
    iou = lax.optimization_barrier(jnp.where(valid[None], iou, -1))
    index, most = iou.argmax(1).astype(jnp.int32), iou.max(1)
    label = jnp.where(most >= high, 1, jnp.where(most < low, 0, -1))
    highest = iou.max(0)
    if exclusive:
        order = jnp.arange(iou.shape[1])[None]
        owned = (jnp.arange(len(iou))[:, None] == iou.argmax(0)[None]) & (highest > 0)[None]
        owner = jnp.where(owned, order, -1).max(1)
        index, label = jnp.where(owner >= 0, owner, index), jnp.where(owner >= 0, 1, label)
    elif best:
        favourite = ((iou == highest[None]) & (highest > 0)[None]).any(1)
        label = jnp.where(favourite, 1, label)
    return index.astype(jnp.int32), label.astype(jnp.int32)


def spare_crowds(
    label: Int32[Array, "a"],
    overlap: Float[Array, "a n"],
    crowd: Bool[Array, "n"],
    above: float = 0.5,
) -> Int32[Array, "a"]:
    """Negative anchors of which more than that share lies in a crowd become neither.

    overlap: `boxes.overlap` of anchors with boxes; it is never below the IoU, so that what would
    match the box is spared too.
    """
    inside = ((overlap > above) & crowd[None]).any(1)
    return jnp.where((label == 0) & inside, -1, label)


def draw(
    key: PRNGKeyArray, label: Int32[Array, "a"], number: int, share: float
) -> tuple[Int32[Array, "number"], Bool[Array, "number"]]:
    """Places of `number` anchors or regions drawn at random, and which of them there are.

    At most number * share positive ones, uniformly; the rest is filled up with negative ones. Where
    there are too few of both, fewer are drawn.
    """
    at_most = int(number * share)
    chance = jax.random.uniform(key, (1, len(label)))
    positive, is_positive = (x[0] for x in top(chance, (label == 1)[None], at_most))
    negative, is_negative = (x[0] for x in top(chance, (label == 0)[None], number))
    places = jnp.concatenate([positive, negative])
    drawn = jnp.concatenate([is_positive, is_negative])
    first = jnp.argsort(~drawn, stable=True)[:number]  # negatives move up where positives lack
    return places[first], drawn[first]


def sample(
    key: PRNGKeyArray, label: Int32[Array, "a"], number: int, share: float
) -> Bool[Array, "a"]:
    """Which anchors `draw` draws: those that the loss counts (RPN: 256, at most half positive)."""
    places, drawn = draw(key, label, number, share)
    return jnp.zeros(label.shape, bool).at[jnp.where(drawn, places, len(label))].set(True)


def hardest(
    loss: Float[Array, "a"], label: Int32[Array, "a"], ratio: float = 3.0
) -> Bool[Array, "a"]:
    """All positive anchors, and `ratio` times as many negative ones, those of the largest loss.

    SSD's hard negative mining (Liu et al. 2016, §2.2): without a positive nothing counts.
    """
    order = jnp.argsort(jnp.where(label == 0, loss, -jnp.inf), descending=True, stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return (label == 1) | ((label == 0) & (rank < ratio * (label == 1).sum()))
