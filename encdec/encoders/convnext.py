"""ConvNeXt trunks (Liu et al. 2022, §2 and Table 9)."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Map, Maps
from encdec.errors import InputError
from encdec.layers import Conv, standardise

# Published as truncated at ±2, which is 100 deviations: not at all.
normal = nn.initializers.normal(0.02)


class Block(nn.Module):
    """x + gamma (norm, 1x1 four times as wide, GELU, 1x1 of a 7x7 convolution by channel).

    Attributes:
      drop: probability in training that an image skips the block (stochastic depth).
      dilation: of the 7x7 convolution.
    """

    drop: float
    dilation: int
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        width = x.shape[-1]
        y = Conv(
            width,
            (7, 7),
            padding=3 * self.dilation,
            kernel_dilation=self.dilation,
            feature_group_count=width,
            kernel_init=normal,
            dtype=self.dtype,
            name="conv",
        )(x)
        y = layer_norm(self.dtype, "norm")(y)
        y = nn.Dense(4 * width, kernel_init=normal, dtype=self.dtype, name="expand")(y)
        y = nn.gelu(y, approximate=False)
        y = nn.Dense(width, kernel_init=normal, dtype=self.dtype, name="project")(y)
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (width,), jnp.float32)
        y = y * gamma.astype(y.dtype)[None, None, None]
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


class ConvNeXt(nn.Module):
    """Patches of 4x4 pixels, then four stages of residual blocks with 2x2 convolutions between.

    Attributes:
      blocks: in each stage; (3, 3, 9, 3) is ConvNeXt-T.
      channels: width of each stage.
      output_stride: 16 or 8 keep the last stage, or the last two, at that stride by dilation.
      drop_path: probability that the last block is skipped in training; it rises evenly from 0 at
        the first. 0 here; the paper trains with 0.1 (T), 0.4 (S) and 0.5 (B).
      mean, std: of the published weights, by channel, in [0, 1].
    """

    blocks: tuple[int, ...] = (3, 3, 9, 3)
    channels: tuple[int, ...] = (96, 192, 384, 768)
    output_stride: Literal[8, 16, 32] = 32
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns the stages' last blocks by stride, 4, 8, 16, 32; no norm follows them.

        Strides above `output_stride` are not there: the deepest stage alone has that stride.
        Sizes round up, by zeros below and on the right: the published nets drop these pixels.
        """
        if len(self.blocks) != len(self.channels):
            raise InputError(
                f"ConvNeXt wants as many blocks as channels; got {self.blocks} and {self.channels}"
            )
        if min((*self.blocks, *self.channels), default=0) < 1:
            raise InputError(
                "ConvNeXt wants blocks and channels of at least 1; got "
                f"{self.blocks} and {self.channels}"
            )
        x, maps, before = standardise(images, self.mean, self.std), {}, 0
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.channels, strict=True), 1):
            stride, step, first, dilation = self.stage(stage)
            if stage > 1:
                x = layer_norm(self.dtype, f"norm{stage}")(x)
            x = self.patches(x, width, step, first, f"conv{stage}")
            if stage == 1:
                x = layer_norm(self.dtype, "norm1")(x)
            for i in range(1, blocks + 1):
                drop = self.drop_path * before / max(sum(self.blocks) - 1, 1)
                block = Block(drop, dilation, self.dtype, name=f"stage{stage}_block{i}")
                x, before = block(x, train=train), before + 1
            x = maps[stride] = checkpoint_name(x, MAP)
        return maps

    def patches(self, x: Map, width: int, step: int, dilation: int, name: str) -> Map:
        """Convolution of the kernel that covers the map once: 4x4, then 2x2; if it may not step,
        it is dilated, with zeros around as "SAME" puts them (timm)."""
        size = max(step, 2)
        missing = [(0, -n % size) for n in x.shape[1:3]]
        return Conv(
            width,
            (size, size),
            step,
            padding=missing if step > 1 else "SAME",
            kernel_dilation=dilation,
            kernel_init=normal,
            dtype=self.dtype,
            name=name,
        )(x)

    def stage(self, stage: int) -> tuple[int, int, int, int]:
        """Stride of its map, step of the convolution before it, dilation of that and of its blocks
        (timm's order)."""
        full, before = 2 ** (stage + 1), 2**stage if stage > 1 else 1
        stride = min(full, self.output_stride)
        dilation = full // stride
        return stride, stride // min(before, self.output_stride), max(dilation // 2, 1), dilation

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis."""
        field, fields = 1, {}
        for stage, blocks in enumerate(self.blocks, 1):
            stride, step, first, dilation = self.stage(stage)
            field += (max(step, 2) - 1) * first * stride // step + 6 * dilation * stride * blocks
            fields[stride] = field
        return fields


def layer_norm(dtype: Dtype | None, name: str) -> nn.LayerNorm:
    """Over channels, epsilon 1e-6; the variance of what is centred, as large means need it."""
    return nn.LayerNorm(1e-6, dtype=dtype, use_fast_variance=False, name=name)


def convnext_tiny(output_stride: Literal[8, 16, 32] = 32) -> ConvNeXt:
    """27,818,592 parameters."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), output_stride)


def convnext_small(output_stride: Literal[8, 16, 32] = 32) -> ConvNeXt:
    """49,453,152 parameters."""
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), output_stride)


def convnext_base(output_stride: Literal[8, 16, 32] = 32) -> ConvNeXt:
    """87,564,416 parameters."""
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), output_stride)
