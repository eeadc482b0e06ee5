"""Names of the arrays that travel. b, h, w, c: batch, rows, columns, channels; k: classes."""

from typing import Literal

from jaxtyping import Array, Float, Integer, Shaped

Images = Float[Array, "b h w c"]
"""Images on the device: channels last, values in [0, 1]."""

Labels = Integer[Array, "b h w"]
"""True class ids; 255 is ignored everywhere."""

Logits = Float[Array, "b h w k"]
"""Unnormalised class scores."""

Map = Float[Array, "b _ _ _"]
"""Features of one stride."""

Maps = dict[int, Map]
"""Features by stride: input pixels per map cell. Loop over `sorted(maps)`: jit sorts keys."""

Batch = dict[str, Shaped[Array, "b ..."]]
"""On the device: "image", "label", and what else the data set has, leading axis b."""

MAP = "map"
"""Name (`checkpoint_name`) of the values that a step keeps which recomputes the rest."""

IGNORE = 255
"""Label of pixels that count nowhere."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""Of a computation; parameters are float32."""
