"""Upsampling without weights, and cropping."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from encdec.arrays import Map


def nearest(x: Map, factor: int) -> Map:
    """Every cell becomes factor x factor equal cells."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def bilinear(x: Map, factor: int) -> Map:
    """Bilinear upsampling with half-pixel centres: `jax.image.resize`, `align_corners=False`."""
    b, h, w, c = x.shape
    if factor > 4:  # two small dots then beat many slices
        return jax.image.resize(x, (b, h * factor, w * factor, c), "bilinear")
    for axis in (1, 2):
        size = x.shape[axis]
        part = partial(lax.slice_in_dim, x, axis=axis)
        before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
        after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
        offsets = [(i + 0.5) / factor - 0.5 for i in range(factor)]
        phases = [x * (1 - abs(d)) + (after if d > 0 else before) * abs(d) for d in offsets]
        shape = (*x.shape[:axis], size * factor, *x.shape[axis + 1 :])
        x = jnp.stack(phases, axis + 1).reshape(shape)
    return x


def centre_crop(x: Map, height: int, width: int) -> Map:
    """The middle height x width cells (U-Net §2: the loss of border pixels in valid nets)."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]
