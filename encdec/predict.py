"""One image of any size -> label map."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

from encdec.data.fit import BUCKET, shrunk
from encdec.geometry import geometry
from encdec.model import EncoderDecoder


def predict(
    model: EncoderDecoder, variables: Any, image: UInt8[np.ndarray, "h w c"], *, shrink: int = 1
) -> Int32[np.ndarray, "h w"]:
    """Class ids of every pixel: the greatest logit's.

    The image is padded, by its edge, to a multiple of 32 pixels, so that images of many sizes
    share few compiled programs; for an unpadded net it is mirrored, without repeating the edge
    (U-Net §2), by the net's margin and up to the next good size.

    Args:
      shrink: the factor by which the net was trained on smaller images; ids are at full size.
    """
    height, width, channels = image.shape
    small = shrunk({"image": image}, shrink)["image"]
    rows, columns = small.shape[:2]
    bucket = (-(-rows // BUCKET) * BUCKET, -(-columns // BUCKET) * BUCKET)
    margin = geometry(model, bucket, channels).margin
    if margin == (0, 0):
        size, mode = bucket, "edge"
    else:
        wanted = (rows + 2 * margin[0], columns + 2 * margin[1])
        size, mode = geometry(model, wanted, channels).input, "reflect"
    after = (size[0] - rows - margin[0], size[1] - columns - margin[1])
    border = ((margin[0], after[0]), (margin[1], after[1]), (0, 0))
    labels = _compiled(model, shrink)(variables, np.pad(small, border, mode=mode)[None])
    return np.asarray(labels)[0, :height, :width]


@functools.lru_cache(maxsize=8)
def _compiled(model: EncoderDecoder, shrink: int) -> Any:
    @jax.jit
    def labels(variables: Any, images: UInt8[Array, "b h w c"]) -> Int32[Array, "b y x"]:
        logits = model.apply(variables, images.astype(jnp.float32) / 255)["logits"]
        b, h, w, k = logits.shape
        if shrink > 1:
            logits = jax.image.resize(logits, (b, h * shrink, w * shrink, k), "bilinear")
        return jnp.argmax(logits, -1).astype(jnp.int32)

    return labels
