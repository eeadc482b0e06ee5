"""AlexNet's trunk as FCN uses it (Krizhevsky et al. 2012; Long et al. 2015, §4.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Map, Maps
from encdec.layers import Conv, he_normal, standardise


class AlexNet(nn.Module):
    """Five convolutions, the second, fourth and fifth in two groups; fc6 and fc7 as convolutions.

    Pooling comes before the response normalisation, as in the weights that FCN starts from.

    Attributes:
      channels: of the five convolutions.
      fc: widths of fc6 (6x6, unpadded) and fc7 (1x1).
      pad: zeros around the image.
      dropout: after fc6 and fc7.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    channels: tuple[int, ...] = (96, 256, 384, 384, 256)
    fc: tuple[int, int] = (4096, 4096)
    pad: int = 100
    dropout: float = 0.5
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns fc7's map, of stride 32."""

        def conv(x: Map, name: str, width: int, size: int, pad: int, groups: int = 1) -> Map:
            layer = Conv(
                width,
                (size, size),
                4 if name == "conv1" else 1,
                padding=pad,
                feature_group_count=groups,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=name,
            )
            return nn.relu(layer(x))

        x, width = standardise(images, self.mean, self.std), self.channels
        x = normalise(pool(conv(x, "conv1", width[0], 11, self.pad)))
        x = normalise(pool(conv(x, "conv2", width[1], 5, 2, groups=2)))
        x = conv(x, "conv3", width[2], 3, 1)
        x = conv(x, "conv4", width[3], 3, 1, groups=2)
        x = pool(conv(x, "conv5", width[4], 3, 1, groups=2))
        for name, width, size in (("fc6", self.fc[0], 6), ("fc7", self.fc[1], 1)):
            x = nn.Dropout(self.dropout, deterministic=not train)(conv(x, name, width, size, 0))
        return {32: checkpoint_name(x, MAP)}

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell sees, along one axis (FCN, Table 1: 355)."""
        return {32: 11 + 2 * 4 + (4 + 2) * 8 + (3 * 2 + 2) * 16 + 5 * 32}

    def origins(self) -> dict[int, float]:
        """Input pixel, along one axis, on which the first cell is centred."""
        return {32: 5 - self.pad + 4 + 8 + 16 + 2.5 * 32}


def pool(x: Map) -> Map:
    """3x3 max pooling with stride 2, sizes rounded up, as Caffe does."""
    missing = [(0, (n - 3) % 2) for n in x.shape[1:3]]
    return nn.max_pool(x, (3, 3), (2, 2), missing)


def normalise(x: Map) -> Map:
    """Response normalisation over 5 adjacent channels (Krizhevsky et al. 2012, §3.3)."""
    squares = jnp.pad(x * x, ((0, 0),) * 3 + ((2, 2),))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x * (1 + 1e-4 / 5 * total) ** -0.75
