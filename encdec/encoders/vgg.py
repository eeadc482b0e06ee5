"""VGG trunks (Simonyan and Zisserman 2014, Table 1), FCN's encoder."""

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Maps
from encdec.errors import InputError
from encdec.layers import ConvNormRelu, NormKind, max_pool, standardise


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each closed by 2x2 max pooling.

    Attributes:
      convs: convolutions in each stage; column D of Table 1, VGG16, by default.
      channels: width of each stage.
      norm: "none" as published, "batch" as torchvision's `vgg16_bn` (the biases stay).
      mean, std: of the published weights, by channel, in [0, 1].
    """

    convs: tuple[int, ...] = (2, 2, 3, 3, 3)
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    norm: NormKind = "none"
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
                    width, self.norm, bias=True, dtype=self.dtype, name=f"conv{stage}_{i}"
                )
                x = block(x, train=train)
            x = max_pool(x)
            x = maps[2**stage] = checkpoint_name(x, MAP)
        return maps

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis."""
        field, fields = 1, {}
        for stage, convs in enumerate(self.convs, 1):
            field += 2 ** (stage - 1) * (2 * convs + 1)
            fields[2**stage] = field
        return fields


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
