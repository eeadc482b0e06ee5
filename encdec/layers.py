"""Shared layers, in forms whose gradient is as fast as their forward pass.

`lax` differentiates a dilated convolution, a window reduction and a resize into a dilated
convolution, a scatter and a scatter; the forms here become dots, comparisons and sums.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from encdec import parallel
from encdec.arrays import Images, Map
from encdec.errors import InputError

NormKind = Literal["batch", "group", "none"]
Dtype = Literal["float32", "bfloat16", "float16"]

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Gaussian with deviation sqrt(2/N), N incoming nodes (He et al. 2015; U-Net §3)."""


def standardise(images: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> Images:
    """(images - mean) / std by channel; their averages where the image has other channels."""
    if images.shape[-1] != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    mean, std = (jnp.asarray(v, images.dtype)[None, None, None] for v in (mean, std))
    return (images - mean) / std


class Norm(nn.Module):
    """Normalisation by kind; "batch" is synchronised over devices, under `jit` and `pmap`.

    Numbers are torchvision's: momentum 0.9 (0.1 there), epsilon 1e-5; groups of GroupNorm: 32,
    or the largest common divisor with the channels.
    """

    kind: NormKind = "batch"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        if self.kind == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                dtype=self.dtype,
                axis_name=parallel.axis(),
                name="batch",
            )(x)
        if self.kind == "group":
            groups = next(g for g in range(min(32, x.shape[-1]), 0, -1) if x.shape[-1] % g == 0)
            return nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name="group")(x)
        return x


class ConvNormRelu(nn.Module):
    """3x3 convolution, normalisation, ReLU.

    Attributes:
      channels: width of the result.
      padded: keep the size; otherwise "valid", two pixels smaller (U-Net §2).
      bias: also where a norm follows, which makes it idle; without a norm there always is one.
    """

    channels: int
    norm: NormKind = "none"
    padded: bool = True
    bias: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        x = nn.Conv(
            self.channels,
            (3, 3),
            padding=1 if self.padded else 0,
            use_bias=self.bias or self.norm == "none",
            kernel_init=he_normal,
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(Norm(self.norm, self.dtype, name="norm")(x, train=train))


def bilinear_kernel(size: int) -> Float[Array, "size size"]:
    """Weights of a transposed convolution that is bilinear (FCN §3.3); size 2s sums to s²."""
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    ramp = 1 - jnp.abs(jnp.arange(size) - centre) / half
    return jnp.outer(ramp, ramp)


def bilinear_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Each channel upsampled by itself, bilinearly: `bilinear_kernel` on the channel diagonal."""
    size, _, channels, out = shape
    return (
        bilinear_kernel(size).astype(dtype)[:, :, None, None] * jnp.eye(channels, out)[None, None]
    )


def one_draw(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser, but with the same weights at all places of the kernel."""

    def drawn(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jnp.broadcast_to(init(key, (1, 1, *shape[2:]), dtype), shape)

    return drawn


def conv_transpose(
    x: Map, kernel: Float[Array, "k k c o"], stride: int, padding: Literal["SAME", "VALID"] = "SAME"
) -> Map:
    """Transposed convolution as one dot and depth-to-space; `nn.ConvTranspose`'s numbers.

    The kernel is a multiple m of the stride, so every output block of s x s pixels is one dot of
    its m x m nearest inputs: a 1x1 layer for U-Net's 2x2 up-convolution, a 2x2 one for FCN's.

    Returns:
      (b, s h, s w, o) for "SAME", (b, s (h - 1) + k, s (w - 1) + k, o) for "VALID".
    """
    size, _, channels, out = kernel.shape
    if size % stride:
        raise InputError(f"kernel must be a multiple of the stride; got {size} and {stride}")
    b, h, w, _ = x.shape
    near = size // stride
    # The kernel acts on the dilated input: within an output block it runs backwards.
    kernel = kernel.reshape(near, stride, near, stride, channels, out)[:, ::-1, :, ::-1]
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(near * near * channels, -1)
    border = (near - 1, near - 1)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    h, w = h + near - 1, w + near - 1
    x = jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(near) for j in range(near)], -1)
    x = (x @ kernel).reshape(b, h, w, stride, stride, out)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * stride, w * stride, out)
    crop = (size - stride) // 2 if padding == "SAME" else 0
    return x[:, crop : x.shape[1] - crop, crop : x.shape[2] - crop]


class ConvTranspose(nn.Module):
    """Transposed convolution with `nn.ConvTranspose`'s parameters; see `conv_transpose`.

    Attributes:
      start: "gaussian" of deviation sqrt(2/N), where N are the inputs that one pixel of the result
        has (U-Net §3, read literally); "nearest", one such draw for all places of the kernel: if
        it is as large as the stride, a cell becomes a block of equal cells, and no checkerboard
        has to be unlearned (Aitken et al. 2017); or "bilinear".
    """

    channels: int
    kernel: int
    stride: int
    bias: bool = True
    start: Literal["gaussian", "nearest", "bilinear"] = "gaussian"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        # A pixel of the result has (kernel / stride)² inputs a channel, not kernel².
        inputs = x.shape[-1] * (self.kernel // self.stride) ** 2
        gaussian = nn.initializers.normal(math.sqrt(2 / inputs))
        init = {"gaussian": gaussian, "nearest": one_draw(gaussian), "bilinear": bilinear_init}
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        kernel = self.param("kernel", init[self.start], shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:]) if self.bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = conv_transpose(x, kernel, self.stride)
        return x if bias is None else x + bias[None, None, None]


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


def max_pool_3x3(x: Map) -> Map:
    """3x3 max pooling with stride 2 and padding 1 (the ResNet stem), columns after rows.

    Equal inputs share the gradient; `nn.max_pool` gives it to the first.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=jnp.finfo(x.dtype).min)
    for axis in (1, 2):
        size = (x.shape[axis] - 3) // 2 + 1
        first, second, third = (
            lax.slice_in_dim(x, i, i + 2 * size - 1, stride=2, axis=axis) for i in range(3)
        )
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


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


def check_classes(classes: int) -> None:
    """Raises InputError unless there is at least one class."""
    if classes < 1:
        raise InputError(f"classes must be at least 1, background included; got {classes}")
