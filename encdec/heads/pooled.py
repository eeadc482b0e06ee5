"""One class for an image, from all levels: a pyramid serves any task."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from encdec.arrays import Dtype, Maps
from encdec.heads import check_classes


class Pooled(nn.Module):
    """Mean over each level's cells, mean over levels, one linear layer."""

    classes: int = 10
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_classes(self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, maps: Maps, *, size: tuple[int, int], train: bool
    ) -> dict[str, Float[Array, "b k"]]:
        """Returns "image_class": logits, (b, classes). The maps must have one width."""
        means = jnp.stack([maps[stride].mean((1, 2)) for stride in sorted(maps)])
        score = nn.Dense(self.classes, dtype=self.dtype, name="class_score")
        return {"image_class": score(means.mean(0))}

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind a logit, by stride: one, though it sees the whole image."""
        return dict.fromkeys(strides, 1)
