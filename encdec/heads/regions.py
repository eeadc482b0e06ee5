"""What a two-stage detector predicts of regions, from their pooled features, by shared weights."""

from flax import linen as nn
from jaxtyping import Array, Float

from encdec.arrays import Dtype
from encdec.decoders.fpn import xavier_uniform
from encdec.heads import check_classes
from encdec.layers import Conv, ConvTranspose, he_normal

Regions = Float[Array, "b n s s c"]
"""Features of n regions of each image, pooled to s x s cells."""


class TwoFC(nn.Module):
    """Class and boxes of regions: two fully connected layers with ReLU (FPN §4.2).

    14,310,805 parameters for 81 classes and 7x7 cells of 256 channels.

    Attributes:
      classes: of the softmax, the background, 0, included.
      channels: of the two hidden layers.
    """

    classes: int = 81
    channels: int = 1024
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, regions: Regions, *, train: bool) -> dict[str, Float[Array, "b n ..."]]:
        """Returns "region_class", (b, n, classes), and "region_box", (b, n, classes, 4).

        Each class has deltas of its own, dx, dy, dw, dh; the background's are idle.
        """
        # A kernel (s, s, c, channels), as fc6 has it where it is a convolution.
        x = nn.DenseGeneral(
            self.channels, (-3, -2, -1), kernel_init=xavier_uniform, dtype=self.dtype, name="fc6"
        )(regions)
        x = self.linear("fc7", self.channels, xavier_uniform)(nn.relu(x))
        x = nn.relu(x)
        scores = self.linear("class_score", self.classes, nn.initializers.normal(0.01))(x)
        deltas = self.linear("box_deltas", self.classes * 4, nn.initializers.normal(0.001))(x)
        return {
            "region_class": scores,
            "region_box": deltas.reshape(*deltas.shape[:2], self.classes, 4),
        }

    @nn.nowrap
    def linear(self, name: str, channels: int, init: nn.initializers.Initializer) -> nn.Dense:
        return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)


class MaskHead(nn.Module):
    """Masks of regions, one for each class (He et al. 2017, Mask R-CNN, Figure 4, right).

    3x3 convolutions with ReLU, one 2x2 transposed one that doubles the cells, scores by 1x1.

    Attributes:
      classes: of the masks; they do not compete. As many as the boxes have, so that a class has one
        number in both: the background's mask is idle.
      channels: of every layer.
      depth: 3x3 convolutions.
    """

    classes: int = 81
    channels: int = 256
    depth: int = 4
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, regions: Regions, *, train: bool) -> dict[str, Float[Array, "b n ..."]]:
        """Returns "region_mask", logits (b, n, 2 s, 2 s, classes): 28x28 of 14x14 cells."""
        x = regions.reshape(-1, *regions.shape[2:])
        for i in range(1, self.depth + 1):
            conv = Conv(
                self.channels,
                (3, 3),
                padding=1,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            x = nn.relu(conv(x))
        x = ConvTranspose(self.channels, 2, 2, dtype=self.dtype, name="deconvolution")(x)
        init = nn.initializers.normal(0.001)
        score = nn.Conv(self.classes, (1, 1), kernel_init=init, dtype=self.dtype, name="mask_score")
        x = score(nn.relu(x))
        return {"region_mask": x.reshape(*regions.shape[:2], *x.shape[1:])}
