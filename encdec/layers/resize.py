"""Upsampling without weights, and cropping."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from encdec.arrays import Map


def nearest(x: Map, factor: int) -> Map:
    """Every cell becomes factor x factor equal cells."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def bilinear(x: Map, factor: int) -> Map:
    """Bilinear upsampling with half-pixel centres: `jax.image.resize`, `align_corners=False`."""
    return _stretch(_stretch(x, factor, 1), factor, 2)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _stretch(x: Map, factor: int, axis: int) -> Map:
    """Bilinear along one axis: each of the `factor` phases mixes a cell with a neighbour."""
    size, border = x.shape[axis], [(0, 0)] * x.ndim
    border[axis] = (1, 1)
    x = jnp.pad(x, border, mode="edge")
    before, here, after = (
        jnp.expand_dims(lax.slice_in_dim(x, i, i + size, axis=axis), axis + 1) for i in range(3)
    )
    offset = (jnp.arange(factor, dtype=x.dtype) + 0.5) / factor - 0.5
    offset = offset.reshape([factor if a == axis + 1 else 1 for a in range(here.ndim)])
    y = here * (1 - abs(offset))
    y += after * jnp.maximum(offset, 0) + before * jnp.maximum(-offset, 0)
    return y.reshape(*y.shape[:axis], size * factor, *y.shape[axis + 2 :])


def _stretch_forward(x: Map, factor: int, axis: int) -> tuple[Map, None]:
    return _stretch(x, factor, axis), None


def _stretch_backward(factor: int, axis: int, _: None, grad: Map) -> tuple[Map]:
    """A cell gathers what it gave: from a triangle of twice `factor` results, less one if odd."""
    size, count = grad.shape[axis], 2 * factor - factor % 2
    border = [(0, 0)] * grad.ndim
    border[axis] = (factor // 2, factor // 2)
    grad = jnp.pad(grad, border, mode="symmetric")  # an edge cell is its own missing neighbour
    taps = [
        lax.slice_in_dim(grad, i, i + size - factor + 1, factor, axis)
        * (1 - abs(i - (count - 1) / 2) / factor)
        for i in range(count)
    ]
    return (sum(taps),)


_stretch.defvjp(_stretch_forward, _stretch_backward)


def aligned(x: Map, factor: int) -> Map:
    """Bilinear upsampling that puts corner on corner, PyTorch's `align_corners=True`."""
    for axis in (1, 2):
        size = x.shape[axis]
        places = np.linspace(0, size - 1, size * factor, dtype=np.float32)
        shares = np.maximum(1 - abs(places[:, None] - np.arange(size, dtype=np.float32)[None]), 0)
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(shares, x.dtype), (axis, 1)), -1, axis)
    return x


def centre_crop(x: Map, height: int, width: int) -> Map:
    """The middle height x width cells (U-Net §2: the loss of border pixels in valid nets)."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]
