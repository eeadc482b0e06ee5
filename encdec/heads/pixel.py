"""One map -> logits of every pixel, at image size."""

from typing import Literal

from flax import linen as nn

from encdec.arrays import Dtype, Logits, Map, Maps
from encdec.errors import InputError
from encdec.heads import check_classes
from encdec.layers import Conv, ConvTranspose, Upsampling, bilinear, he_normal


class Pixel(nn.Module):
    """Predicts on the finest map: classifies it, then upsamples the scores to image size.

    Attributes:
      classes: of the logits, background included.
      scores: the map holds class scores already (FCN): only upsample.
      upsample: "resize", bilinear with half-pixel centres: FCN's last layer, which is fixed
        (CVPR 2015, §4.3); or a transposed convolution that starts bilinear: "learned", "grouped",
        or "fixed" (see `ConvTranspose`).
      offset: first row and column of its unpadded result to keep (`encdec.decoders.fcn.crops`);
        None: as many rows as there are on either side.
      kernel: of the transposed convolution; twice the stride if 0.
      convolution: size of the one that classifies.
      relu: after the scores, as the retina U-Net has it.
      deep: in training, predict on the coarser maps too (deep supervision): "aux_s2", …
    """

    classes: int = 21
    scores: bool = False
    upsample: Literal["resize"] | Upsampling = "resize"
    offset: int | None = None
    kernel: int = 0
    convolution: int = 1
    relu: bool = False
    deep: bool = False
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Logits]:
        """Returns "logits", (b, *size, classes); smaller where an unpadded decoder is."""
        finest, *coarser = sorted(maps)
        outputs = {"logits": self.predict(maps[finest], finest, size, "score")}
        if self.deep and (train or self.is_initializing()):
            for stride in coarser:
                name = f"aux_s{stride}"
                outputs[name] = self.predict(maps[stride], stride, size, f"score_s{stride}")
        return outputs

    def predict(self, x: Map, stride: int, size: tuple[int, int], name: str) -> Logits:
        """Logits of the image from the map of a stride."""
        if not self.scores:
            x = Conv(
                self.classes,
                (self.convolution,) * 2,
                padding=self.convolution // 2,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=name,
            )(x)
            x = nn.relu(x) if self.relu else x
        elif x.shape[-1] != self.classes:
            raise InputError(
                f"Pixel(scores=True) wants maps of {self.classes} class scores; got "
                f"{x.shape[-1]} channels: give the decoder channels={self.classes}"
            )
        if stride == 1:
            return x[:, : size[0], : size[1]]
        if self.upsample == "resize":
            return bilinear(x, stride)[:, : size[0], : size[1]]
        x = ConvTranspose(
            self.classes,
            self.kernel or 2 * stride,
            stride,
            bias=False,
            start="bilinear",
            weights=self.upsample,
            padding="SAME" if self.offset is None else "VALID",
            dtype=self.dtype,
            name="deconvolution" if name == "score" else name.replace("score", "deconvolution"),
        )(x)
        start = self.offset or 0
        return x[:, start : start + size[0], start : start + size[1]]

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one pixel, by stride of the maps, in the worst phase."""
        return {min(strides): self.convolution + (min(strides) > 1)}
