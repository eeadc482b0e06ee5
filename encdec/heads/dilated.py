"""One map of a dilated encoder -> logits: what torchvision calls FCN. It has no skips."""

from flax import linen as nn

from encdec.arrays import Dtype, Logits, Map, Maps
from encdec.errors import InputError
from encdec.heads import check_classes
from encdec.layers import ConvNormRelu, bilinear


class Dilated(nn.Module):
    """3x3 convolution to a quarter of the channels, dropout, scores, bilinear upsampling.

    Attributes:
      classes: of the logits, background included.
      stages: channels of the stages that the map holds, the deepest last (`ResNet.together`). The
        last gives "logits"; in training the one before it gives "aux".
      dropout: of values, before the scores.
    """

    classes: int = 21
    stages: tuple[int, ...] = (512, 1024, 2048)
    dropout: float = 0.1
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Logits]:
        """Returns "logits", and "aux" in training, each (b, *size, classes)."""
        stride = min(maps)
        x = maps[stride]
        if x.shape[-1] != sum(self.stages) or len(self.stages) < 2:
            raise InputError(
                f"Dilated wants one map of two or more stages, {sum(self.stages)} channels in all; "
                f"got {x.shape[-1]}: use an encoder with output_stride and together=True"
            )

        def predict(x: Map, name: str) -> Logits:
            x = ConvNormRelu(x.shape[-1] // 4, "batch", dtype=self.dtype, name=f"{name}_conv")(
                x, train=train
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Conv(self.classes, (1, 1), dtype=self.dtype, name=f"{name}_score")(x)
            return bilinear(x, stride)[:, : size[0], : size[1]]

        last, before = self.stages[-1], self.stages[-2]
        outputs = {"logits": predict(x[..., -last:], "logits")}
        if train or self.is_initializing():
            outputs["aux"] = predict(x[..., -last - before : -last], "aux")
        return outputs

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one pixel, by stride of the maps, in the worst phase."""
        return {min(strides): 4}
