"""One map -> logits of every pixel, at image size."""

from typing import Literal

from flax import linen as nn

from encdec.arrays import Dtype, Logits, Maps
from encdec.errors import InputError
from encdec.heads import check_classes
from encdec.layers import ConvTranspose, bilinear


class Pixel(nn.Module):
    """Predicts on the finest map: classifies it, then upsamples the scores to image size.

    Attributes:
      classes: of the logits, background included.
      scores: the map holds class scores already (FCN): only upsample.
      upsample: "resize", bilinear with half-pixel centres: FCN's last layer, which is fixed
        (CVPR 2015, §4.3); or "learned", a transposed convolution that starts bilinear.
    """

    classes: int = 21
    scores: bool = False
    upsample: Literal["resize", "learned"] = "resize"
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Logits]:
        """Returns "logits", (b, *size, classes); smaller where an unpadded decoder is."""
        stride = min(maps)
        x = maps[stride]
        if not self.scores:
            x = nn.Conv(self.classes, (1, 1), dtype=self.dtype, name="score")(x)
        elif x.shape[-1] != self.classes:
            raise InputError(
                f"Pixel(scores=True) wants maps of {self.classes} class scores; got "
                f"{x.shape[-1]} channels: give the decoder channels={self.classes}"
            )
        if stride > 1 and self.upsample == "learned":
            x = ConvTranspose(
                self.classes,
                2 * stride,
                stride,
                bias=False,
                start="bilinear",
                dtype=self.dtype,
                name="deconvolution",
            )(x)
        elif stride > 1:
            x = bilinear(x, stride)
        return {"logits": x[:, : size[0], : size[1]]}

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one pixel, by stride of the maps, in the worst phase."""
        return {min(strides): 2 if min(strides) > 1 else 1}
