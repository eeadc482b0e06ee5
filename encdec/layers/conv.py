"""Convolutions, with norm and ReLU; transposed ones as one dot and depth-to-space."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from encdec.arrays import Dtype, Map
from encdec.errors import InputError
from encdec.layers.depthwise import Axis, depthwise, grouped
from encdec.layers.norm import Norm, NormKind

Upsampling = Literal["learned", "grouped", "fixed"]
"""Weights of a transposed convolution: of all pairs of channels, of each channel, or none."""

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Gaussian with deviation sqrt(2/N), N incoming nodes (He et al. 2015; U-Net §3)."""


def convolve(
    x: Map,
    kernel: Float[Array, "p q c o"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **rest: Any,
) -> Map:
    """`lax.conv_general_dilated`, but with what XLA does badly on a CPU done otherwise there.

    A kernel larger than the map is one dot: FCN's 7x7 fc6, 256 to 512 channels, on a 4x4 map takes
    XLA 20 times as long, forward and gradient (jaxlib 0.10.2); so is a 1x1 kernel, 1.4 times. Where
    the channels get fewer, as in U-Net after every concatenation, see `_narrowing`; groups of
    channels are in `depthwise.py`.
    """
    direct = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **rest)
    size, extent, dilation = x.shape[1:3], kernel.shape[:2], rest["rhs_dilation"]
    groups = rest["feature_group_count"]
    if {*rest["lhs_dilation"]} != {1} or (groups == 1 and {*strides, *dilation} != {1}):
        return direct(x, kernel)
    if isinstance(padding, str):
        reach = [(n - 1) * d + 1 for n, d in zip(extent, dilation, strict=True)]
        padding = lax.padtype_to_pads(size, reach, strides, padding)
    ours = None
    if groups == x.shape[-1] == kernel.shape[-1] > 1:
        ours = partial(depthwise, *map(Axis, extent, strides, padding, dilation))
    elif groups > 1:
        ours = partial(grouped, partial(direct, feature_group_count=1), groups)
    elif extent == (1, 1) or all(
        isinstance(n, int) and n < k for n, k in zip(size, extent, strict=True)
    ):
        ours = partial(_dot, padding)
    if ours:
        return lax.platform_dependent(x, kernel, cpu=ours, default=direct)
    kept = all(sum(pads) >= n - 1 for pads, n in zip(padding, extent, strict=True))
    if kept and x.shape[-1] > kernel.shape[-1]:  # of a smaller result XLA's CPU is at a loss
        return _narrowing(direct, padding)(x, kernel)
    return direct(x, kernel)


def _dot(padding: Sequence[tuple[int, int]], x: Map, kernel: Array) -> Map:
    """Convolution as one dot of the kernel with all windows."""
    rows, columns = kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    h, w = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    windows = [x[:, i : i + h, j : j + w] for i in range(rows) for j in range(columns)]
    cells = jnp.concatenate(windows, -1).reshape(x.shape[0] * h * w, -1)
    return (cells @ kernel.reshape(-1, kernel.shape[-1])).reshape(x.shape[0], h, w, -1)


def _narrowing(direct: Callable, padding: Sequence[tuple[int, int]]) -> Callable:
    """The convolution; its weights' gradient slides the result's gradient over the map.

    XLA slides the map over the gradient. What slides is copied for every tap, so the one with
    fewer channels should: 64 to 32 channels at 128x128 then take 0.77 of the time, all gradients
    and the forward pass (jaxlib 0.10.2).
    """

    def slid(x: Map, grad: Map) -> Array:
        border = []
        for n, m, (before, after) in zip(x.shape[1:3], grad.shape[1:3], padding, strict=True):
            last = n + before + after - m  # the kernel's size less one
            border.append((last - before, last - after))
        orders = ("CHWN", "IHWO", "HWCN")
        taps = lax.conv_general_dilated(grad, x, (1, 1), border, dimension_numbers=orders)
        return taps[::-1, ::-1]

    def backward(saved: tuple[Map, Array], grad: Map) -> tuple[Map, Array]:
        x, kernel = saved

        def unslid(x: Map, grad: Map) -> Array:
            return jax.linear_transpose(partial(direct, x), kernel)(grad)[0]

        of_x = jax.linear_transpose(lambda x: direct(x, kernel), x)(grad)[0]
        return of_x, lax.platform_dependent(x, grad, cpu=slid, default=unslid)

    convolution = jax.custom_vjp(direct)
    convolution.defvjp(lambda x, kernel: (direct(x, kernel), (x, kernel)), backward)
    return convolution


Conv = partial(nn.Conv, conv_general_dilated=convolve)
"""`nn.Conv` by `convolve`."""


class ConvNormRelu(nn.Module):
    """3x3 convolution, normalisation, ReLU.

    Attributes:
      channels: width of the result.
      padding: rows and columns of zeros around the map; 1 keeps its size, 0 is "valid" (U-Net §2).
      bias: also where a norm follows, which makes it idle; without a norm there always is one.
    """

    channels: int
    norm: NormKind = "none"
    padding: int = 1
    bias: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        x = Conv(
            self.channels,
            (3, 3),
            padding=self.padding,
            use_bias=self.bias or self.norm == "none",
            kernel_init=he_normal,
            dtype=self.dtype,
            name="conv",
        )(x)
        return Norm(self.norm, relu=True, dtype=self.dtype, name="norm")(x, train=train)


def bilinear_kernel(size: int) -> Float[Array, "size size"]:
    """Weights of a transposed convolution that is bilinear (FCN §3.3); size 2s sums to s²."""
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    ramp = 1 - jnp.abs(jnp.arange(size) - centre) / half
    return jnp.outer(ramp, ramp)


def bilinear_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Each channel upsampled by itself, bilinearly: `bilinear_kernel` on the channel diagonal.

    A kernel of one input channel is grouped: one for every channel of the result.
    """
    size, _, channels, out = shape
    diagonal = jnp.eye(channels, out) if channels > 1 else jnp.ones((1, out))
    return bilinear_kernel(size).astype(dtype)[:, :, None, None] * diagonal[None, None]


def one_draw(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser, but with the same weights at all places of the kernel."""

    def drawn(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jnp.broadcast_to(init(key, (1, 1, *shape[2:]), dtype), shape)

    return drawn


def conv_transpose(
    x: Map, kernel: Float[Array, "k k c o"], stride: int, padding: Literal["SAME", "VALID"] = "SAME"
) -> Map:
    """Transposed convolution as one dot and depth-to-space; `nn.ConvTranspose`'s numbers.

    Every output block of s x s pixels is one dot of its m x m nearest inputs, m = ceil(k / s): a
    1x1 layer for U-Net's 2x2 up-convolution, a 2x2 one for FCN's.

    Returns:
      (b, s h, s w, o) for "SAME", which wants k - s even, and (b, s (h - 1) + k, s (w - 1) + k, o)
      for "VALID".
    """
    size, _, channels, out = kernel.shape
    if padding == "SAME" and (size < stride or (size - stride) % 2):
        raise InputError(
            f"padding SAME wants a kernel of the stride or an even number more; got {size} and "
            f"{stride}"
        )
    b, h, w, _ = x.shape
    near = -(-size // stride)
    spare = near * stride - size
    # The kernel acts on the dilated input: within an output block it runs backwards.
    kernel = jnp.pad(kernel, ((spare, 0), (spare, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(near, stride, near, stride, channels, out)[:, ::-1, :, ::-1]
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(near * near * channels, -1)
    border = (near - 1, near - 1)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    h, w = h + near - 1, w + near - 1
    x = jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(near) for j in range(near)], -1)
    x = (x @ kernel).reshape(b, h, w, stride, stride, out)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * stride, w * stride, out)
    crop = (size - stride) // 2 if padding == "SAME" else 0
    return x[:, crop : x.shape[1] - crop - spare, crop : x.shape[2] - crop - spare]


class ConvTranspose(nn.Module):
    """Transposed convolution with `nn.ConvTranspose`'s parameters; see `conv_transpose`.

    Attributes:
      start: "gaussian" of deviation sqrt(2/N), where N are the inputs that one pixel of the result
        has (U-Net §3, read literally); "nearest", one such draw for all places of the kernel: if
        it is as large as the stride, a cell becomes a block of equal cells, and no checkerboard
        has to be unlearned (Aitken et al. 2017); or "bilinear".
      weights: "learned"; "grouped", one learned kernel (k, k, 1, c) for each channel; or "fixed",
        the bilinear kernel itself, no parameter.
    """

    channels: int
    kernel: int
    stride: int
    bias: bool = True
    start: Literal["gaussian", "nearest", "bilinear"] = "gaussian"
    weights: Upsampling = "learned"
    padding: Literal["SAME", "VALID"] = "SAME"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        if self.weights != "learned" and x.shape[-1] != self.channels:
            raise InputError(
                f"a {self.weights} transposed convolution wants {self.channels} channels, as many "
                f'as it gives; got {x.shape[-1]}: project them first, or weights="learned"'
            )
        # A pixel of the result has (kernel / stride)² inputs a channel, not kernel².
        near = 1 if self.weights == "grouped" else x.shape[-1]
        gaussian = nn.initializers.normal(math.sqrt(2 / near) * self.stride / self.kernel)
        init = {"gaussian": gaussian, "nearest": one_draw(gaussian), "bilinear": bilinear_init}
        if self.weights == "learned":
            kernel = self.param("kernel", init[self.start], shape, jnp.float32)
        elif self.weights == "grouped":
            grouped = (*shape[:2], 1, self.channels)
            kernel = self.param("kernel", init[self.start], grouped, jnp.float32)
            kernel = kernel * jnp.eye(self.channels)[None, None]
        else:
            kernel = bilinear_init(jax.random.key(0), shape)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, shape[-1:], jnp.float32) if self.bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = conv_transpose(x, kernel, self.stride, self.padding)
        return x if bias is None else x + bias[None, None, None]
