"""SSD's trunk: VGG16 with its classifier as dilated convolutions, then smaller and smaller maps.

Liu et al. 2016, SSD: Single Shot MultiBox Detector, §2.1, §3 and Figure 2.
"""

from collections.abc import Iterator

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Images, Maps
from encdec.errors import InputError
from encdec.layers import Conv, ConvNormRelu, max_pool, max_pool_3x3, standardise

xavier = nn.initializers.xavier_uniform()


class SSDTrunk(nn.Module):
    """conv4_3, fc7, conv8_2 … conv11_2 by the strides that SSD300 gives them.

    Attributes:
      convs: in each of VGG16's stages.
      channels: of each stage.
      fc: widths of fc6, 3x3 dilated by 6, and of fc7, 1x1.
      extras: (stride, channels of a 1x1 convolution, channels of the 3x3 one after it). A stride
        twice the one before is a 3x3 convolution of stride 2; another one is unpadded, and the
        stride a name: in pixels of SSD300's 5, 3 and 1 cells.
      mean, std: of the published weights, by channel, in [0, 1].
    """

    convs: tuple[int, ...] = (2, 2, 3, 3, 3)
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    fc: tuple[int, int] = (1024, 1024)
    extras: tuple[tuple[int, int, int], ...] = (
        (32, 256, 512),
        (64, 128, 256),
        (100, 128, 256),
        (300, 128, 256),
    )
    mean: tuple[float, ...] = (0.48235, 0.45882, 0.40784)
    std: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Maps:
        """Returns maps of 300x300 pixels: 38, 19, 10, 5, 3 and 1 cells at 8, 16, 32, 64, 100, 300.

        Raises:
          InputError: the image is so small that an unpadded convolution has nothing to see.
        """
        least = self.next_good_size(1)
        if min(images.shape[1:3]) < least:
            raise InputError(
                f"SSDTrunk wants images of at least {least} pixels, got {images.shape[1:3]}: take "
                "larger ones, or fewer extras"
            )
        x, maps = standardise(images, self.mean, self.std), {}
        for stage, (convs, width) in enumerate(zip(self.convs, self.channels, strict=True), 1):
            for i in range(1, convs + 1):
                block = ConvNormRelu(width, dtype=self.dtype, name=f"conv{stage}_{i}")
                x = block(x, train=train)
            if stage == 4:
                maps[8] = checkpoint_name(x, MAP)
            # pool5 keeps its size, and the dilation of fc6 makes up for the stride (§3).
            x = max_pool(x) if stage < 5 else max_pool_3x3(x, stride=1)
        x = nn.relu(self.conv("fc6", self.fc[0], 3, 1, 6, 6)(x))
        x = nn.relu(self.conv("fc7", self.fc[1], 1)(x))
        maps[16] = checkpoint_name(x, MAP)
        for i, (stride, inner, width, strided) in enumerate(self.rows(), 8):
            x = nn.relu(self.conv(f"conv{i}_1", inner, 1)(x))
            x = nn.relu(self.conv(f"conv{i}_2", width, 3, 1 + strided, int(strided))(x))
            maps[stride] = checkpoint_name(x, MAP)
        return maps

    @nn.nowrap
    def conv(
        self,
        name: str,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
    ) -> nn.Module:
        return Conv(
            channels,
            (kernel, kernel),
            stride,
            padding=padding,
            kernel_dilation=dilation,
            kernel_init=xavier,
            dtype=self.dtype,
            name=name,
        )

    def rows(self) -> Iterator[tuple[int, int, int, bool]]:
        """The extras, and whether each halves the map before it."""
        before = 16
        for stride, inner, width in self.extras:
            yield stride, inner, width, stride == 2 * before
            before = stride

    def next_good_size(self, size: int) -> int:
        """`size`, or the smallest number of pixels that leaves a cell to every extra; 257."""
        cells = 1
        for *_, strided in reversed(list(self.rows())):
            cells = 2 * cells - 1 if strided else cells + 2
        return max(size, 16 * (cells - 1) + 1)

    def receptive_fields(self) -> dict[int, int]:
        """Input pixels that one cell of each map sees, along one axis (conv4_3: 92)."""
        field, jump, fields = 1, 1, {}
        for stage, convs in enumerate(self.convs, 1):
            field += 2 * convs * jump
            if stage == 4:
                fields[8] = field
            field += jump if stage < 5 else 2 * jump
            jump *= 2 if stage < 5 else 1
        fields[16] = field = field + 12 * jump
        for stride, _, _, strided in self.rows():
            field += 2 * jump
            jump *= 1 + strided
            fields[stride] = field
        return fields
