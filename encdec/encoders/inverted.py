"""Inverted residual blocks, of which the mobile trunks are made (Sandler et al. 2018, §3.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Map, Maps
from encdec.encoders.resnet import fan_out_normal
from encdec.layers import Conv, Norm, NormKind, he_normal

Activation = Literal["none", "relu", "relu6", "hard_swish", "swish"]

Padding = Literal["symmetric", "same"] | int
"""Zeros around a map: as many on all sides (PyTorch); by its size, the odd one behind it
(TensorFlow); or, whatever the size, those of "same" in the network of square images of that many
pixels (efficientnet_pytorch)."""


@dataclass(frozen=True)
class Form:
    """What all layers of a trunk have in common: fields of their `Norm`, and the padding."""

    norm: NormKind = "batch"
    dtype: Dtype | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    padding: Padding = "symmetric"


@dataclass(frozen=True)
class Row:
    """One block of a published table.

    Attributes:
      name: of its parameters.
      kernel: of the depthwise convolution.
      inputs, expanded, channels: of the block, of the depthwise convolution, of what it gives; if
        the first two are equal, nothing expands.
      squeezed: channels within squeeze-and-excitation; 0: there is none.
      gate: of squeeze-and-excitation: a ReLU, then a hard sigmoid; or a swish, then a sigmoid.
    """

    name: str
    kernel: int
    inputs: int
    expanded: int
    channels: int
    stride: int
    activation: Activation
    squeezed: int = 0
    gate: Literal["hard", "swish"] = "hard"


def divisible(channels: int | float) -> int:
    """The nearest multiple of 8, but not below 8, nor below nine tenths of the channels."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 * (near < 0.9 * channels)


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, activation.

    Attributes:
      depthwise: each channel is convolved by itself; `channels` is the input's then.
      before: stride of the map that it reads, in input pixels; only a `Padding` by pixels asks.
    """

    channels: int
    form: Form
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    activation: Activation = "none"
    before: int = 1

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        form = self.form
        x = Conv(
            self.channels,
            (self.kernel, self.kernel),
            self.stride,
            padding=pads(form.padding, self.kernel, self.stride, self.dilation, self.before),
            kernel_dilation=self.dilation,
            feature_group_count=self.channels if self.depthwise else 1,
            use_bias=False,
            kernel_init=he_normal if self.depthwise else fan_out_normal,
            dtype=form.dtype,
            name="conv",
        )(x)
        relu = self.activation in ("relu", "relu6")  # the norm's own costs nothing
        norm = Norm(form.norm, relu, form.dtype, form.epsilon, form.momentum, name="norm")
        x = norm(x, train=train)
        if self.activation == "relu6":
            return jnp.minimum(x, 6)
        return {"hard_swish": nn.hard_swish, "swish": nn.swish}.get(self.activation, lambda x: x)(x)


def pads(
    padding: Padding, kernel: int, stride: int, dilation: int, before: int
) -> int | str | tuple[tuple[int, int], ...]:
    """What `nn.Conv` takes as padding; `before` is the stride of the map that is convolved."""
    spread = (kernel - 1) * dilation
    if padding == "same":
        return "SAME"
    if padding == "symmetric" or stride == 1:
        return spread // 2
    size = -(-padding // before)
    total = max((-(-size // stride) - 1) * stride + spread + 1 - size, 0)
    return ((total // 2, total - total // 2),) * 2


class SqueezeExcite(nn.Module):
    """Every channel is scaled by what two layers make of all channels' means (Hu et al. 2018).

    Attributes:
      channels: of the layer between.
    """

    channels: int
    gate: Literal["hard", "swish"]
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Map) -> Map:
        gates = {"hard": (nn.relu, nn.hard_sigmoid), "swish": (nn.swish, nn.sigmoid)}
        first, second = gates[self.gate]
        y = x.mean((1, 2), keepdims=True)
        y = first(Conv(self.channels, (1, 1), dtype=self.dtype, name="reduce")(y))
        return x * second(Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="expand")(y))


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, a depthwise one, 1x1 to few channels without activation.

    Attributes:
      before: stride of the map that it reads.
      stride, dilation: of the depthwise convolution; dilation may stand for the row's stride.
      drop_path: share of the images that skip the block in training, if it has a skip.
    """

    row: Row
    form: Form
    before: int = 1
    stride: int = 1
    dilation: int = 1
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        row, form, y = self.row, self.form, x
        if row.expanded != row.inputs:
            expand = ConvNorm(row.expanded, form, activation=row.activation, name="expand")
            y = expand(y, train=train)
        y = ConvNorm(
            row.expanded,
            form,
            row.kernel,
            self.stride,
            self.dilation,
            depthwise=True,
            activation=row.activation,
            before=self.before,
            name="depthwise",
        )(y, train=train)
        if row.squeezed:
            y = SqueezeExcite(row.squeezed, row.gate, form.dtype, name="squeeze")(y)
        y = ConvNorm(row.channels, form, name="project")(y, train=train)
        if row.stride > 1 or row.inputs != row.channels:
            return y
        drop = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)
        return x + drop(y)


def places(rows: tuple[Row, ...], output_stride: int) -> Iterator[tuple[Row, int, int, int]]:
    """Every row with the stride of the map that it reads, its own stride, and its dilation.

    A block that would exceed the output stride keeps the dilation of those before it; those behind
    it have as much more as it would have strided (the order of timm's, and of our ResNets).
    """
    before, dilation = 2, 1
    for row in rows:
        stride = row.stride if before * row.stride <= output_stride else 1
        yield row, before, stride, dilation
        before, dilation = before * stride, dilation * row.stride // stride


def walk(
    x: Map,
    rows: tuple[Row, ...],
    form: Form,
    *,
    output_stride: int,
    train: bool,
    drop_path: float = 0.0,
    taps: tuple[str, ...] = (),
) -> Maps:
    """The blocks behind a stem of stride 2; to be called within a module's `__call__`.

    Args:
      drop_path: grows in even steps from 0 in the first block; this behind the last.
      taps: "stem" and blocks whose maps are given, not those of the last block of their stride.

    Returns:
      By stride what its last block gives; the stem, if a block of stride 2 follows it.
    """
    maps, tapped = {}, {2: checkpoint_name(x, MAP)} if "stem" in taps else {}
    for i, (row, before, stride, dilation) in enumerate(places(rows, output_stride)):
        if stride > 1:
            x = maps[before] = checkpoint_name(x, MAP)
        drop = drop_path * i / len(rows)
        block = InvertedResidual(row, form, before, stride, dilation, drop, name=row.name)
        x = block(x, train=train)
        if row.name in taps:
            tapped[before * stride] = checkpoint_name(x, MAP)
    return maps | {before * stride: checkpoint_name(x, MAP)} | tapped


def receptive_fields(
    rows: tuple[Row, ...], output_stride: int, taps: tuple[str, ...] = ()
) -> dict[int, int]:
    """Input pixels, along one axis, that a cell of each of `walk`'s maps sees behind a 3x3 stem of
    stride 2; squeeze-and-excitation, which sees them all, does not count."""
    field, fields, tapped = 3, {}, {2: 3} if "stem" in taps else {}
    for row, before, stride, dilation in places(rows, output_stride):
        if stride > 1:
            fields[before] = field
        field += (row.kernel - 1) * dilation * before
        if row.name in taps:
            tapped[before * stride] = field
    return fields | {before * stride: field} | tapped
