"""DenseNet trunks with bottlenecks and compression (Huang et al. 2017, §3 and Table 1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Map, Maps
from encdec.errors import InputError
from encdec.layers import Conv, Norm, NormKind, he_normal, max_pool_3x3, standardise


class Layer(nn.Module):
    """What one dense layer adds to its input: norm, ReLU, 1x1; norm, ReLU, 3x3 (§3, DenseNet-B)."""

    growth: int
    norm: NormKind
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Map, *, train: bool) -> Map:
        for i, (channels, kernel) in enumerate(((4 * self.growth, 1), (self.growth, 3)), 1):
            x = Norm(self.norm, relu=True, dtype=self.dtype, name=f"norm{i}")(x, train=train)
            x = Conv(
                channels,
                (kernel, kernel),
                padding=kernel // 2,
                use_bias=False,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
        return x


class DenseNet(nn.Module):
    """7x7 convolution and max pooling, then blocks in which every layer reads all before it.

    Between blocks a transition halves the channels (a compression of 0.5) and the size.

    Attributes:
      layers: in each block; (6, 12, 24, 16) is DenseNet-121.
      growth: channels that a layer adds, k in the paper.
      width: channels of the stem, 2k in the paper.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    layers: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    norm: NormKind = "batch"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns the stem by stride 2, the blocks by 4, 8, 16, 32, as smp's encoder does.

        A block's map is taken after the norm that reads it: the transition's with its ReLU, and
        the last one without. timm takes the blocks bare, the last with norm and ReLU.
        """
        if min((self.width, self.growth, *self.layers)) < 1:
            raise InputError(
                "DenseNet wants width, growth and layers of at least 1; got "
                f"{self.width}, {self.growth} and {self.layers}"
            )

        def conv(x: Map, channels: int, kernel: int, stride: int, name: str) -> Map:
            return Conv(
                channels,
                (kernel, kernel),
                stride,
                padding=kernel // 2,
                use_bias=False,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=name,
            )(x)

        def norm(x: Map, relu: bool, name: str) -> Map:
            x = Norm(self.norm, relu, self.dtype, name=name)(x, train=train)
            return checkpoint_name(x, MAP)

        x = conv(standardise(images, self.mean, self.std), self.width, 7, 2, "conv1")
        x = norm(x, True, "norm1")
        maps = {2: x}
        x = max_pool_3x3(x)
        for block, layers in enumerate(self.layers, 1):
            if block > 1:
                x = conv(x, x.shape[-1] // 2, 1, 1, f"transition{block - 1}_conv")
                x = average_pool(x)
            for i in range(1, layers + 1):
                layer = Layer(self.growth, self.norm, self.dtype, name=f"block{block}_layer{i}")
                x = jnp.concatenate([x, layer(x, train=train)], -1)
            last = block == len(self.layers)
            x = norm(x, not last, "norm_last" if last else f"transition{block}_norm")
            maps[2 ** (block + 1)] = x
        return maps

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis."""
        fields, field = {2: 7}, 7 + 2 * 2
        for block, layers in enumerate(self.layers, 1):
            stride = 2 ** (block + 1)
            field += (stride // 2 if block > 1 else 0) + 2 * stride * layers
            fields[stride] = field
        return fields


def average_pool(x: Map) -> Map:
    """2x2 averages with stride 2; odd sizes round up, where the last is of the cells there are."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def densenet121(norm: NormKind = "batch") -> DenseNet:
    """6,953,856 parameters."""
    return DenseNet((6, 12, 24, 16), norm=norm)
