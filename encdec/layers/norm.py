"""Normalisation; batch normalisation and its ReLU as one operation with a closed-form gradient."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from encdec import parallel
from encdec.arrays import Dtype, Images, Map

NormKind = Literal["batch", "frozen", "group", "none"]
Stats = tuple[Float[Array, " c"], Float[Array, " c"]]

EPSILON = 1e-5


def standardise(images: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> Images:
    """(images - mean) / std by channel; their averages where the image has other channels."""
    if images.shape[-1] != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    mean, std = (jnp.asarray(v, images.dtype)[None, None, None] for v in (mean, std))
    return (images - mean) / std


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def batch_norm(
    x: Map,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    relu: bool,
    axis: str | None,
    epsilon: float = EPSILON,
) -> tuple[Map, Stats]:
    """x normalised by its own statistics, scaled, shifted and, if `relu`, cut at zero.

    Statistics are float32 and, where `axis` names the devices, those of all devices' pixels.

    Returns:
      The map in x's type; and (mean, variance), through which no gradient flows.
    """
    return _forward(x, scale, bias, relu, axis, epsilon)[0]


def _forward(
    x: Map, scale: Array, bias: Array, relu: bool, axis: str | None, epsilon: float
) -> tuple[tuple[Map, Stats], tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    mean, square = _means((wide, wide * wide), axis)
    variance = jnp.maximum(square - mean * mean, 0)
    y = affine(x, scale, bias, mean, variance, relu, epsilon)
    return (y, (mean, variance)), (x, scale, bias, mean, variance)


def _backward(
    relu: bool,
    axis: str | None,
    epsilon: float,
    saved: tuple[Array, ...],
    grads: tuple[Map, Stats],
) -> tuple[Map, Array, Array]:
    x, scale, bias, mean, variance = saved
    centred = x.astype(jnp.float32) - mean[None, None, None]
    inverse = lax.rsqrt(variance + epsilon)
    grad = grads[0].astype(jnp.float32)
    if relu:
        y = affine(x, scale, bias, mean, variance, False, epsilon)
        grad = jnp.where(y > 0, grad, 0)
    # The parameters' gradients stay this device's own, as those of every other layer do.
    shift, tilt = _total(grad), _total(grad * centred) * inverse
    size = x.size // x.shape[-1]
    level, slope = (lax.pmean(t / size, axis) if axis else t / size for t in (shift, tilt))
    grad = (grad - level[None, None, None]) * (scale * inverse)[None, None, None]
    grad -= centred * (scale * inverse**2 * slope)[None, None, None]
    return grad.astype(x.dtype), tilt.astype(scale.dtype), shift.astype(bias.dtype)


batch_norm.defvjp(_forward, _backward)


def affine(
    x: Map,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    relu: bool,
    epsilon: float = EPSILON,
) -> Map:
    """x normalised by given statistics, scaled, shifted and, if `relu`, cut at zero."""
    slope = scale * lax.rsqrt(variance + epsilon)
    y = (x.astype(jnp.float32) - mean[None, None, None]) * slope[None, None, None]
    y += bias[None, None, None]
    return (nn.relu(y) if relu else y).astype(x.dtype)


def _means(maps: tuple[Map, ...], axis: str | None) -> tuple[Array, ...]:
    means = tuple(_total(x) / (x.size // x.shape[-1]) for x in maps)
    return lax.pmean(means, axis) if axis else means


def _total(x: Map) -> Float[Array, " c"]:
    """Sum over batch, rows and columns.

    On a CPU, where XLA sums in windows, slowly, rows are summed by a dot. Columns are summed after
    it: a dot adds one by one, and of 345,600 float32 squares it would lose 1e-4.
    """
    b, h, w, c = x.shape
    return lax.platform_dependent(
        x.reshape(b * h, w * c),
        cpu=lambda rows: (jnp.ones((1, b * h)) @ rows).reshape(w, c).sum(0),
        default=lambda rows: rows.reshape(-1, c).sum(0),
    )


class BatchNorm(nn.Module):
    """`nn.BatchNorm`'s parameters, statistics and numbers.

    Attributes:
      epsilon: added to the variance.
      momentum: share of the old statistics in the new; one minus PyTorch's.
      frozen: always as in evaluation; neither statistics nor parameters change.
    """

    relu: bool = False
    dtype: Dtype | None = None
    epsilon: float = EPSILON
    momentum: float = 0.9
    frozen: bool = False

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        width = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        x = x if self.dtype is None else x.astype(self.dtype)
        if self.frozen:
            scale, bias = lax.stop_gradient((scale, bias))
        if self.frozen or not train:
            return affine(x, scale, bias, mean.value, variance.value, self.relu, self.epsilon)
        y, new = batch_norm(x, scale, bias, self.relu, parallel.axis(), self.epsilon)
        if not self.is_initializing():
            kept = self.momentum
            mean.value, variance.value = (
                kept * old.value + (1 - kept) * lax.stop_gradient(now)
                for old, now in zip((mean, variance), new, strict=True)
            )
        return y


class Norm(nn.Module):
    """Normalisation by kind, then a ReLU if `relu`; "batch" is synchronised over devices.

    "frozen" is that of published weights, an affine map that nothing changes: detectors train on
    too few images at a time for statistics of their own (FPN's and Mask R-CNN's code).

    Numbers are torchvision's: momentum 0.9 (0.1 there), epsilon 1e-5; groups of GroupNorm: 32,
    or the largest common divisor with the channels.
    """

    kind: NormKind = "batch"
    relu: bool = False
    dtype: Dtype | None = None
    epsilon: float = EPSILON
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        if self.kind in ("batch", "frozen"):
            how = (self.relu, self.dtype, self.epsilon, self.momentum, self.kind == "frozen")
            norm = BatchNorm(*how, name="batch")
            return norm(x, train=train)
        if self.kind == "group":
            groups = next(g for g in range(min(32, x.shape[-1]), 0, -1) if x.shape[-1] % g == 0)
            x = nn.GroupNorm(groups, epsilon=self.epsilon, dtype=self.dtype, name="group")(x)
        return nn.relu(x) if self.relu else x
