"""VGG trunks (Simonyan and Zisserman 2014, Table 1), FCN's encoder."""

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from encdec.arrays import MAP, Dtype, Images, Maps
from encdec.errors import InputError
from encdec.layers import Conv, ConvNormRelu, NormKind, he_normal, max_pool, standardise


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each closed by 2x2 max pooling.

    Attributes:
      convs: convolutions in each stage; column D of Table 1, VGG16, by default.
      channels: width of each stage.
      norm: "none" as published, "batch" as torchvision's `vgg16_bn` (the biases stay).
      pad: zeros around the image; 100 in FCN's nets, so that every size is large enough for fc6.
      fc: widths of fc6 and fc7 as convolutions, 7x7 unpadded and 1x1 (FCN §3.1); (4096, 4096) in
        FCN's nets, whose map of stride 32 is fc7's.
      dropout: after fc6 and fc7.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    convs: tuple[int, ...] = (2, 2, 3, 3, 3)
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    norm: NormKind = "none"
    pad: int = 1
    fc: tuple[int, ...] = ()
    dropout: float = 0.5
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns pool1 … pool5 by stride: 2, 4, 8, 16, 32 (FCN §4 fuses pool3, pool4, pool5)."""
        if len(self.convs) != len(self.channels):
            raise InputError(
                f"VGG wants as many convs as channels; got {self.convs} and {self.channels}"
            )
        if min(self.channels, default=0) < 1 or min(self.convs) < 1:
            raise InputError(
                f"VGG wants convs and channels of at least 1; got {self.convs} and {self.channels}"
            )
        x, maps = standardise(images, self.mean, self.std), {}
        for stage, (convs, width) in enumerate(zip(self.convs, self.channels, strict=True), 1):
            for i in range(1, convs + 1):
                block = ConvNormRelu(
                    width,
                    self.norm,
                    self.pad if stage == i == 1 else 1,
                    bias=True,
                    dtype=self.dtype,
                    name=f"conv{stage}_{i}",
                )
                x = block(x, train=train)
            x = max_pool(x)
            x = maps[2**stage] = checkpoint_name(x, MAP)
        if self.fc and any(n < 7 for n in x.shape[1:3]):
            raise InputError(
                f"fc6 wants a map of at least 7x7 cells; got {x.shape[1]}x{x.shape[2]} of an image "
                f"of {images.shape[1]}x{images.shape[2]}: take larger images, or pad=100"
            )
        for i, width in enumerate(self.fc):
            conv = Conv(
                width,
                (1, 1) if i else (7, 7),
                padding=0,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=f"fc{i + 6}",
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(conv(x)))
            maps[2 ** len(self.convs)] = checkpoint_name(x, MAP)
        return maps

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis."""
        field, fields = 1, {}
        for stage, convs in enumerate(self.convs, 1):
            field += 2 ** (stage - 1) * (2 * convs + 1)
            fields[2**stage] = field
        if self.fc:
            fields[2 ** len(self.convs)] += 6 * 2 ** len(self.convs)
        return fields

    def origins(self) -> dict[int, float]:
        """Input pixel, along one axis, on which the first cell of each map is centred."""
        origin, origins = 1.0 - self.pad, {}
        for stage in range(1, len(self.convs) + 1):
            origin += 2**stage / 4  # between two cells of the map before
            origins[2**stage] = origin
        if self.fc:
            origins[2 ** len(self.convs)] += 3 * 2 ** len(self.convs)
        return origins


def to_convolution(
    matrix: Float[Array, "i o"], size: tuple[int, int]
) -> Float[Array, "{size[0]} {size[1]} c o"]:
    """The kernel of the convolution that a fully connected layer is (FCN §3.1).

    Args:
      matrix: its weights, inputs in the order channels, rows, columns (Caffe, PyTorch); the
        transpose of theirs.
      size: rows and columns of the map that it was trained on: 7x7 for fc6.
    """
    channels = matrix.shape[0] // (size[0] * size[1])
    return matrix.reshape(channels, *size, matrix.shape[1]).transpose(1, 2, 0, 3)


def vgg11(norm: NormKind = "none") -> VGG:
    """Column A: 9,220,480 parameters."""
    return VGG(convs=(1, 1, 2, 2, 2), norm=norm)


def vgg13(norm: NormKind = "none") -> VGG:
    """Column B: 9,404,992 parameters."""
    return VGG(convs=(2, 2, 2, 2, 2), norm=norm)


def vgg16(norm: NormKind = "none") -> VGG:
    """Column D: 14,714,688 parameters."""
    return VGG(convs=(2, 2, 3, 3, 3), norm=norm)


def vgg19(norm: NormKind = "none") -> VGG:
    """Column E: 20,024,384 parameters."""
    return VGG(convs=(2, 2, 4, 4, 4), norm=norm)
