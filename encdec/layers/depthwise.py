"""Depthwise and grouped convolutions, in forms whose loops XLA's CPU compiler makes fast.

Of the convolution itself it makes a loop over single numbers. Forward and gradient take 0.02 to
0.04 of its time where channels stay apart, 0.01 for ResNeXt's groups of four (jaxlib 0.10.2,
`python -m benchmarks ops`).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from encdec.arrays import Map

ROWS = 16
"""Rows summed by one loop; LLVM unrolls it up to some thirty, beyond it takes 4 times as long."""

WIDTH = 32
"""Channels that a dense convolution has at least."""


class Axis(NamedTuple):
    """A convolution along rows or along columns."""

    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int

    def cells(self, n: int) -> int:
        """Of the result, for n of the map."""
        return (n + sum(self.padding) - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def reads(self, cell: int) -> list[tuple[int, int]]:
        """What reads a cell of the map: (tap, cell of the result)."""
        taps = enumerate(cell + self.padding[0] - i * self.dilation for i in range(self.kernel))
        return [(i, at // self.stride) for i, at in taps if at % self.stride == 0]


def grouped(
    dense: Callable[[Map, Array], Map], groups: int, x: Map, kernel: Float[Array, "p q g o"]
) -> Map:
    """The convolution in groups, as dense ones of 32 channels, or of a group where it has more."""
    *extent, channels, out = kernel.shape
    near = next(n for n in range(max(1, WIDTH // channels), 0, -1) if groups % n == 0)
    kernel = kernel.reshape(*extent, 1, channels, -1, near, out // groups)
    kernel *= jnp.eye(near, dtype=kernel.dtype).reshape(1, 1, near, 1, 1, near, 1)
    kernel = kernel.reshape(*extent, near * channels, -1, near * out // groups)
    parts = enumerate(jnp.split(x, groups // near, -1))
    return jnp.concatenate([dense(part, kernel[..., i, :]) for i, part in parts], -1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def depthwise(rows: Axis, columns: Axis, x: Map, kernel: Float[Array, "p q 1 c"]) -> Map:
    """The convolution of every channel by itself: a sum over taps of shifted maps, in float32."""
    axes = rows, columns
    taps = product(*([(i, i * axis.dilation) for i in range(axis.kernel)] for axis in axes))
    size = [axis.cells(n) for axis, n in zip(axes, x.shape[1:3], strict=True)]
    x = _padded(x, rows.padding, columns.padding)
    return _weighted(x, kernel, taps, size, (rows.stride, columns.stride))


def _gradients(rows: Axis, columns: Axis, saved: tuple[Map, Array], grad: Map) -> tuple[Map, Array]:
    x, kernel = saved
    of_kernel = _of_kernel(rows, columns, x, grad).astype(kernel.dtype)
    return _of_map((rows, columns), x.shape[1:3], kernel, grad), of_kernel


depthwise.defvjp(lambda *args: (depthwise(*args), args[2:]), _gradients)


def _padded(x: Map, *border: tuple[int, int]) -> Map:
    return jnp.pad(x, ((0, 0), *border, (0, 0)))


def _weighted(
    x: Map, kernel: Array, taps: Iterable, size: Sequence[int], strides: Sequence[int] = (1, 1)
) -> Map:
    """Sum of the map's parts of that size that begin at the taps' cells, times their weights."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.zeros((x.shape[0], *size, x.shape[-1]), wide)
    for (i, row), (j, column) in taps:
        part = _part(x, (row, column), size, strides).astype(wide)
        total += part * kernel[i, j, 0].astype(wide)[None, None, None]
    return total.astype(x.dtype)


def _part(x: Map, first: Sequence[int], size: Sequence[int], strides: Sequence[int]) -> Map:
    ends = [f + (n - 1) * s + 1 for f, n, s in zip(first, size, strides, strict=True)]
    return lax.slice(x, (0, *first, 0), (x.shape[0], *ends, x.shape[-1]), (1, *strides, 1))


def _of_map(axes: tuple[Axis, Axis], size: tuple[int, int], kernel: Array, grad: Map) -> Map:
    """The map's gradient: cells that are a stride apart are read by the same taps."""
    border, counts, taps = [], [], []
    for axis, n, cells in zip(axes, size, grad.shape[1:3], strict=True):
        phases = [axis.reads(first) for first in range(axis.stride)]
        near = [cell for phase in phases for _, cell in phase]
        counts.append(-(-n // axis.stride))
        border.append((max(0, -min(near)), max(0, max(near) + counts[-1] - cells)))
        taps.append([[(i, cell + border[-1][0]) for i, cell in phase] for phase in phases])
    grad = _padded(grad, *border)
    lines = [[_weighted(grad, kernel, product(i, j), counts) for j in taps[1]] for i in taps[0]]
    x = jnp.stack([jnp.stack(line, 3) for line in lines], 2)  # (b, h / s, s, w / s, s, c)
    x = x.reshape(len(grad), -1, x.shape[3] * x.shape[4], grad.shape[-1])
    return x[:, : size[0], : size[1]]


def _of_kernel(rows: Axis, columns: Axis, x: Map, grad: Map) -> Array:
    """The kernel's gradient, by blocks of rows that stay in the cache and by rows of the kernel."""
    b, h, w, c = grad.shape
    blocks = -(-h // ROWS)
    height = -(-h // blocks)
    missing = blocks * height - h
    before, after = rows.padding
    x = _padded(x, (before, after + missing * rows.stride), columns.padding)
    grad = _padded(grad, (0, missing), (0, 0))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def one(step: Array) -> Array:
        block, i = jnp.divmod(step, rows.kernel)
        image, row = block // blocks, block % blocks * height
        start = (image, row * rows.stride + i * rows.dilation, 0, 0)
        part = lax.dynamic_slice(x, start, (1, (height - 1) * rows.stride + 1, x.shape[2], c))
        near = lax.dynamic_slice(grad, (image, row, 0, 0), (1, height, w, c)).astype(wide)
        sums = []
        for j in range(columns.kernel):
            first, strides = (0, j * columns.dilation), (rows.stride, columns.stride)
            line = (_part(part, first, (height, w), strides).astype(wide) * near).sum((0, 1))
            sums.append(jnp.ones((1, w), wide) @ line)  # of columns, XLA's sum is slow
        return jnp.concatenate(sums)

    sums = lax.map(one, jnp.arange(b * blocks * rows.kernel))
    return sums.reshape(-1, rows.kernel, columns.kernel, 1, c).sum(0)
