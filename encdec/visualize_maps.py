"""Pictures of feature maps: what a network carries down and up, level by level, for one image.

Channels become colours by principal components: cells of one colour have like features. Colours of
two maps are not comparable, since each map has components of its own.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from encdec.decoders.topdown import TopDown
from encdec.errors import InputError
from encdec.model import EncoderDecoder
from encdec.predict import check_image
from encdec.visualize import Picture

Levels = dict[int, Float[np.ndarray, "_ _ _"]]
"""Maps of one image by stride, (rows, columns, channels)."""


def walk(model: EncoderDecoder, variables: Any, image: np.ndarray) -> dict[str, Levels]:
    """The maps of one image, by stride: "down", the encoder's; "path", what the decoder carries up,
    merged and refined, at the coarsest level what it starts from; "out", what the head reads.

    Args:
      image: uint8 (h, w, c), 0 to 255; of a size that the model takes.

    Raises:
      InputError: the image is not one, or the decoder is no walk from coarse to fine.
    """
    check_image(image)
    decoder = model.decoder
    if not isinstance(decoder, TopDown):
        raise InputError(
            "a walk from coarse to fine is wanted, FCN, UNet or FPN; got a decoder "
            f"{type(decoder).__name__}"
        )
    # Every call is kept: the path's maps are the outputs of places, which have names.
    keep = partial(model.apply, capture_intermediates=True, mutable="intermediates")
    _, kept = jax.jit(keep)(variables, jnp.asarray(image[None] / np.float32(255)))
    parts = jax.device_get(kept["intermediates"])
    top, *finer = (stride for stride, _ in decoder.walk())
    names = {top: f"lateral_s{top}"} | {s: f"refine_s{s}" for s in finer}
    found = {
        "down": parts["encoder"]["__call__"][0],
        "path": {s: parts["decoder"][name]["__call__"][0] for s, name in names.items()},
        "out": parts["decoder"]["__call__"][0],
    }
    return {kind: {s: maps[s][0] for s in sorted(maps)} for kind, maps in found.items()}


def colours(features: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """The first three principal components over the cells as red, green and blue.

    Each is stretched from its 2nd to its 98th percentile. Of fewer than three channels, or where
    features do not vary in three directions, what is missing is mid grey.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0, keepdims=True)
    _, strength, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:3][strength[:3] > 1e-6 * max(1e-12, strength[0])]
    # A component's sign is arbitrary: its largest weight is made positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), abs(axes).argmax(1)])[:, None]
    shown = flat @ axes.T
    low, high = np.percentile(shown, [2, 98], axis=0)[:, None]
    shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    picture = np.full((len(flat), 3), 0.5)
    picture[:, : shown.shape[1]] = shown
    return (255 * picture).round().astype(np.uint8).reshape(*features.shape[:2], 3)


def row(maps: Levels, strides: tuple[int, ...]) -> list[Picture]:
    """A picture of the map of each of these strides, in their order; a blank where there is none.

    `visualize.grid` puts rows under one another, every picture at the width of its column.
    """
    blank = np.full((1, 1, 3), 255, np.uint8)
    return [colours(maps[s]) if s in maps else blank for s in strides]
