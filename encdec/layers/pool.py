"""Max pooling whose gradient is comparisons, not a scatter."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from encdec.arrays import Map


@jax.custom_vjp
def _max_pool_even(x: Map) -> Map:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def _max_pool_forward(x: Map) -> tuple[Map, tuple[Map, Map]]:
    top = _max_pool_even(x)
    return top, (x, top)


def _max_pool_backward(saved: tuple[Map, Map], grad: Map) -> tuple[Map]:
    x, top = saved
    b, h, w, c = top.shape
    cells = x.reshape(b, h, 2, w, 2, c)
    rows, taken = [], jnp.zeros(top.shape, bool)
    for i in (0, 1):
        row = []
        for j in (0, 1):
            first = (cells[:, :, i, :, j] == top) & ~taken
            row.append(jnp.where(first, grad, 0))
            taken |= first
        rows.append(jnp.stack(row, 3))
    return (jnp.stack(rows, 2).reshape(x.shape),)


_max_pool_even.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(x: Map) -> Map:
    """2x2 max pooling with stride 2; odd sizes round up ("ceil"), as Caffe does.

    Among equal inputs the first gets the gradient, as in `nn.max_pool` and PyTorch.
    """
    rows, columns = x.shape[1] % 2, x.shape[2] % 2
    if rows or columns:
        lowest = jnp.finfo(x.dtype).min
        x = jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), constant_values=lowest)
    return _max_pool_even(x)


def max_pool_3x3(x: Map, stride: Literal[1, 2] = 2) -> Map:
    """3x3 max pooling with padding 1, along rows, then columns: of stride 2 the ResNet stem's, of
    stride 1 SSD's pool5.

    Among equal inputs the first gets the gradient, as in `nn.max_pool` and PyTorch: the leftmost
    of its row, in the uppermost row.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=jnp.finfo(x.dtype).min)
    return _max_of_three(_max_of_three(x, 2, stride), 1, stride)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_of_three(x: Map, axis: int, stride: int) -> Map:
    """Of cells si, si + 1 and si + 2 along the axis."""
    first, second, third = _three(x, axis, stride)
    return jnp.maximum(jnp.maximum(first, second), third)


def _three(x: Map, axis: int, stride: int) -> tuple[Map, Map, Map]:
    last = (x.shape[axis] - 3) // stride * stride
    return tuple(lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(3))


def _max_of_three_forward(x: Map, axis: int, stride: int) -> tuple[Map, Map]:
    return _max_of_three(x, axis, stride), x


def _max_of_three_backward(axis: int, stride: int, x: Map, grad: Map) -> tuple[Map]:
    first, second, third = _three(x, axis, stride)
    to_first = (first >= second) & (first >= third)
    to_second = ~to_first & (second >= third)
    to_third = ~to_first & ~to_second
    shares = [jnp.where(taken, grad, 0) for taken in (to_first, to_second, to_third)]

    def shifted(share: Map, before: int) -> Map:
        widths = [(0, 0)] * 4
        widths[axis] = (before, 3 - stride - before)
        return jnp.pad(share, widths)

    if stride == 1:
        return (sum(shifted(share, i) for i, share in enumerate(shares)),)
    # Cell 2i is the first of window i and the third of window i - 1.
    even, odd = shifted(shares[0], 0) + shifted(shares[2], 1), shifted(shares[1], 0)
    shape = (*grad.shape[:axis], 2 * even.shape[axis], *grad.shape[axis + 1 :])
    both = jnp.stack([even, odd], axis + 1).reshape(shape)
    return (lax.slice_in_dim(both, 0, x.shape[axis], axis=axis),)


_max_of_three.defvjp(_max_of_three_forward, _max_of_three_backward)
