"""Regions (RoIs) of a pyramid -> maps of one size each, from the level that fits the region.

Regions are boxes in pixels of the image, inside it; nothing is learned about where they lie.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, UInt32

from encdec.arrays import Maps
from encdec.boxes import area

Regions = Float[Array, "b n 4"]
Pooled = Float[Array, "b n p p c"]

AT_ONCE = 4
"""Regions of a step that adds gradients to the maps or takes maxima: their values stay in the
cache. Of 512 regions of 7x7x256 RoIAlign and its gradient take a ninth of the time, and 15 MiB
instead of 406, of adding all at once (2 cores, both busy otherwise)."""


def level(
    boxes: Float[Array, "*b 4"], strides: tuple[int, ...], canonical: float = 224.0
) -> Int32[Array, "*b"]:
    """Which of the strides, sorted, a region is read from (Lin et al. 2017, eq. 1).

    k = ⌊4 + log2(√(wh) / 224)⌋, clamped to the levels that there are: a region of 224² pixels, an
    ImageNet picture, is read at stride 16. In other words at the largest stride s, a power of two,
    with wh >= (canonical * s / 16)².
    """
    size = area(boxes)
    reached = [(size >= (canonical * s / 16) ** 2).astype(jnp.int32) for s in sorted(strides)[1:]]
    return sum(reached, jnp.zeros(size.shape, jnp.int32))


class Places(NamedTuple):
    """Where regions lie among the cells of all levels, which stand in one list (see `_list`).

    Attributes:
      start: first cell of the region's map.
      size: rows and columns of that map.
      corners: the regions' (y0, x0, y1, x1) in cells of that map.
    """

    start: Int32[Array, "r"]
    size: Int32[Array, "r 2"]
    corners: Float[Array, "r 4"]


def _places(maps: Maps, boxes: Regions, canonical: float) -> Places:
    boxes = lax.stop_gradient(boxes).astype(jnp.float32)
    strides = sorted(maps)
    sizes = jnp.array([maps[s].shape[1:3] for s in strides], jnp.int32)
    cells = jnp.array([maps[s].shape[0] * maps[s].shape[1] * maps[s].shape[2] for s in strides])
    which = level(boxes, tuple(strides), canonical).reshape(-1)
    size = sizes[which]
    image = jnp.repeat(jnp.arange(boxes.shape[0]), boxes.shape[1])
    start = (jnp.cumsum(cells) - cells)[which] + image * size[:, 0] * size[:, 1]
    corners = boxes.reshape(-1, 4) / jnp.array(strides, jnp.float32)[which][:, None]
    return Places(start.astype(jnp.int32), size, corners)


def _list(maps: Maps) -> Float[Array, "cells c"]:
    """All cells of all levels, the finest first, image by image, row by row."""
    return jnp.concatenate([maps[s].reshape(-1, maps[s].shape[-1]) for s in sorted(maps)])


def _maps(cells: Float[Array, "cells c"], like: Maps) -> Maps:
    """The inverse of `_list`, in the maps' own precision."""
    maps, at = {}, 0
    for s in sorted(like):
        count = like[s].size // cells.shape[-1]
        maps[s] = cells[at : at + count].reshape(like[s].shape).astype(like[s].dtype)
        at += count
    return maps


def _in_steps(tree: tuple) -> tuple:
    """Leading axis n -> (steps, AT_ONCE); what is missing at the end is 0."""

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, -x.shape[0] % AT_ONCE)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, AT_ONCE, *x.shape[1:])

    return jax.tree.map(split, tree)


def _taps(
    places: Places, axis: int, bins: int, samples: int, aligned: bool
) -> tuple[Int32[Array, "r p t"], Float[Array, "r p t"]]:
    """Along one axis the cells that every bin reads, and their weights.

    Bilinear: every sample reads two cells; a bin is the mean of its samples.
    """
    last = (places.size[:, axis] - 1)[:, None]
    low, high = places.corners[:, axis], places.corners[:, axis + 2]
    extent = high - low if aligned else jnp.maximum(high - low, 1)
    steps = (jnp.arange(bins * samples) + 0.5) / (bins * samples)
    at = (low - 0.5 * aligned)[:, None] + steps[None] * extent[:, None]
    inside = (at >= -1) & (at <= last + 1)
    at = jnp.clip(at, 0, last)
    before = jnp.floor(at).astype(jnp.int32)
    after = at - before
    cell = jnp.stack([before, jnp.minimum(before + 1, last)], -1)
    weight = jnp.stack([1 - after, after], -1) * inside[..., None] / samples
    return tuple(x.reshape(-1, bins, 2 * samples) for x in (cell, weight))


def _grid(
    how: tuple, maps: Maps, boxes: Regions
) -> tuple[UInt32[Array, "r p p t"], Float[Array, "r p p t"]]:
    """The cells in the list that every bin reads, and their weights."""
    size, samples, aligned, canonical = how
    places = _places(maps, boxes, canonical)
    (y, down), (x, right) = (_taps(places, axis, size, samples, aligned) for axis in (0, 1))
    y = places.start[:, None, None] + y * places.size[:, 1:, None]
    at = y[:, :, None, :, None] + x[:, None, :, None]
    weight = down[:, :, None, :, None] * right[:, None, :, None]
    shape = (-1, size, size, 4 * samples**2)
    return at.reshape(shape).astype(jnp.uint32), weight.reshape(shape)


def roi_align(
    maps: Maps,
    boxes: Regions,
    size: int,
    samples: int = 2,
    aligned: bool = False,
    canonical: float = 224.0,
) -> Pooled:
    """RoIAlign: size x size bins, each the mean of samples² bilinear values (He et al. 2017, §3).

    aligned: cell centres lie at + 0.5, as they do (Detectron2's RoIAlignV2). Without it everything
    is read half a cell too far down and right, and a region is at least a cell wide: torchvision's
    and Detectron's, which published weights want. canonical: see `level`.

    Forward, bins are sums of gathered cells, without temporaries; backward, `AT_ONCE` regions a
    step add to the cells that they read. The regions get no gradient.
    """
    return _roi_align((size, samples, aligned, canonical), maps, boxes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _roi_align(how: tuple, maps: Maps, boxes: Regions) -> Pooled:
    at, weight = _grid(how, maps, boxes)
    cells = _list(maps)
    taps = range(at.shape[-1])  # one by one: all at once they would be a temporary
    total = sum(cells[at[..., i]].astype(jnp.float32) * weight[..., i, None] for i in taps)
    return total.astype(cells.dtype).reshape(*boxes.shape[:2], *total.shape[1:])


def _align_backward(how: tuple, saved: tuple[Maps, Regions], grad: Pooled) -> tuple[Maps, Regions]:
    maps, boxes = saved
    at, weight = _grid(how, maps, boxes)
    grad = grad.reshape(len(at), *grad.shape[2:]).astype(jnp.float32)

    def add(total: Array, step: tuple) -> tuple[Array, None]:
        at, weight, grad = step
        return total.at[at].add(weight[..., None] * grad[..., None, :]), None

    total = jnp.zeros((sum(m.size for m in maps.values()) // grad.shape[-1], grad.shape[-1]))
    total, _ = lax.scan(add, total, _in_steps((at, weight, grad)))
    return _maps(total, maps), jnp.zeros_like(boxes)


_roi_align.defvjp(lambda how, *args: (_roi_align(how, *args), args), _align_backward)


def roi_max_pool(maps: Maps, boxes: Regions, size: int, canonical: float = 224.0) -> Pooled:
    """RoI max pooling: the largest value of every bin, in whole cells (Girshick 2015, §2.1).

    A region's corners are rounded to cells, the last one counts; bin i of p over h cells has those
    from ⌊i h / p⌋ to ⌈(i + 1) h / p⌉, so that bins may share cells. A bin outside the map is 0.
    Among equal cells the first gets the gradient; the regions get none. canonical: see `level`.

    Computed in whole numbers: with floats, as elsewhere, the last of 7 bins over 57 cells has one
    too many.
    """
    return _roi_max_pool((size, canonical), maps, boxes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _roi_max_pool(how: tuple, maps: Maps, boxes: Regions) -> Pooled:
    return _maxima(how, maps, boxes)[0]


def _bins(places: Places, axis: int, bins: int) -> tuple[Array, Array]:
    """First cell of every bin and the one past its last, cut to the map: (r, bins)."""
    whole = jnp.floor(places.corners + 0.5).astype(jnp.int32)
    low = whole[:, axis][:, None]
    count = jnp.maximum(whole[:, axis + 2][:, None] - low + 1, 1)
    i = jnp.arange(bins)[None]
    edges = low + i * count // bins, low - (-(i + 1) * count // bins)
    return tuple(jnp.clip(edge, 0, places.size[:, axis][:, None]) for edge in edges)


def _maxima(how: tuple, maps: Maps, boxes: Regions) -> tuple[Pooled, Int32[Array, "r p p c"]]:
    """The largest value of every bin, and the cell that has it: the first, -1 if it is empty."""
    bins, canonical = how
    cells = _list(maps)
    places = _places(maps, boxes, canonical)
    edges = _bins(places, 0, bins), _bins(places, 1, bins)

    def search(step: tuple) -> tuple[Array, Array]:
        places, ((top, bottom), (left, right)) = step
        height, width = (bottom - top).max(), (right - left).max()
        shape = (*top.shape, bins, cells.shape[-1])

        def look(k: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
            y, x = top + k // width, left + k % width
            within = (y < bottom)[..., None] & (x < right)[:, None]
            at = (places.start[:, None] + y * places.size[:, 1:])[..., None] + x[:, None]
            value = cells[jnp.where(within, at, 0).astype(jnp.uint32)]
            better = within[..., None] & ((value > best[0]) | (best[1] < 0))
            at = jnp.broadcast_to(at[..., None], shape)
            return jnp.where(better, value, best[0]), jnp.where(better, at, best[1])

        nothing = jnp.zeros(shape, cells.dtype), jnp.full(shape, -1, jnp.int32)
        return lax.fori_loop(0, height * width, look, nothing)

    n = boxes.shape[0] * boxes.shape[1]
    found = lax.map(search, _in_steps((places, edges)))
    value, at = (x.reshape(-1, *x.shape[2:])[:n] for x in found)
    return value.reshape(*boxes.shape[:2], *value.shape[1:]), at


def _max_forward(how: tuple, maps: Maps, boxes: Regions) -> tuple:
    value, at = _maxima(how, maps, boxes)
    return value, (maps, boxes, at)


def _max_backward(how: tuple, saved: tuple, grad: Pooled) -> tuple[Maps, Regions]:
    maps, boxes, at = saved
    channels = at.shape[-1]
    channel = jnp.arange(channels, dtype=jnp.int32)[None, None, None]
    grad = grad.reshape(at.shape).astype(jnp.float32)

    def add(total: Array, step: tuple) -> tuple[Array, None]:
        at, grad = step
        place = jnp.where(at < 0, 0, at) * channels + channel
        return total.at[place.astype(jnp.uint32)].add(jnp.where(at < 0, 0, grad)), None

    total = jnp.zeros(sum(m.size for m in maps.values()))
    total, _ = lax.scan(add, total, _in_steps((at, grad)))
    return _maps(total.reshape(-1, channels), maps), jnp.zeros_like(boxes)


_roi_max_pool.defvjp(_max_forward, _max_backward)
