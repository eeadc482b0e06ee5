"""All levels of a pyramid -> one map -> logits (Kirillov et al. 2019, Panoptic FPN, §3.1)."""

import jax.numpy as jnp
from flax import linen as nn

from encdec.arrays import Dtype, Logits, Map, Maps
from encdec.heads import check_classes
from encdec.layers import ConvNormRelu, NormKind, aligned, bilinear


class Merge(nn.Module):
    """Semantic FPN: convolve and upsample every level to the finest, add, classify, upsample.

    Attributes:
      classes: of the logits, background included.
      channels: width of the branch, 128 in the paper.
      aligned: upsample corner on corner, as segmentation_models.pytorch does.
      dropout: of whole channels of the sum.
    """

    classes: int = 21
    channels: int = 128
    norm: NormKind = "group"
    aligned: bool = False
    dropout: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Logits]:
        """Returns "logits", (b, *size, classes)."""
        finest, levels = min(maps), []
        larger = aligned if self.aligned else bilinear
        for stride in sorted(maps):
            x, level = maps[stride], stride
            for _ in range(max(1, (stride // finest).bit_length() - 1)):  # the finest has one too
                stage = f"stage_s{stride}_from{level}"
                x = ConvNormRelu(self.channels, self.norm, dtype=self.dtype, name=stage)(
                    x, train=train
                )
                if level > finest:
                    level //= 2
                    x = larger(x, 2)
                if level in maps:  # odd sizes round up on the way down
                    x = x[:, : maps[level].shape[1], : maps[level].shape[2]]
            levels.append(x)
        total = nn.Dropout(self.dropout, (1, 2), deterministic=not train)(self.joined(levels))
        logits = nn.Conv(self.classes, (1, 1), dtype=self.dtype, name="score")(total)
        if finest > 1:
            logits = larger(logits, finest)
        return {"logits": logits[:, : size[0], : size[1]]}

    @nn.nowrap
    def joined(self, levels: list[Map]) -> Map:
        """One map of all, which have its size."""
        return sum(levels)

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one pixel, by stride of the maps, in the worst phase."""
        finest, reached = min(strides), {}
        for stride in strides:
            cells, level = 2 if finest > 1 else 1, finest
            if stride == finest:
                cells += 2
            while level < stride:
                cells, level = cells // 2 + 2 + 2, level * 2  # bilinear 2x, then 3x3
            reached[stride] = cells
        return reached


class MergeConcatenated(Merge):
    """The levels' maps side by side, not added: an ablation of the paper."""

    @nn.nowrap
    def joined(self, levels: list[Map]) -> Map:
        """All their channels, the finest level's first."""
        return jnp.concatenate(levels, -1)
