"""Sizes of a network, from its fields alone: nothing is compiled."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from encdec.model import EncoderDecoder


@dataclass(frozen=True)
class Geometry:
    """Sizes, in pixels of the input.

    Attributes:
      input: the next good size, (height, width), at least the size asked for.
      output: size of the logits for it; of a model without, which predicts boxes, the input's.
      margin: rows and columns of the input that the logits lack, before them (U-Net §2: 92).
      stride: input pixels per cell of the finest map that predicts.
      receptive_field: input pixels that one logit sees along one axis, in the worst phase.
    """

    input: tuple[int, int]
    output: tuple[int, int]
    margin: tuple[int, int]
    stride: int
    receptive_field: int


def geometry(model: EncoderDecoder, size: tuple[int, int], channels: int = 3) -> Geometry:
    """What the model makes of images of that (height, width)."""
    good = next_good_size(model, size)
    images = jax.ShapeDtypeStruct((1, *good, channels), jnp.float32)
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    output = outputs["logits"].shape[1:3] if "logits" in outputs else good
    strides = model.decoder.outputs()
    field = model.decoder.receptive_field(
        model.encoder.receptive_fields(), model.head.reach(strides)
    )
    margin = ((good[0] - output[0]) // 2, (good[1] - output[1]) // 2)
    return Geometry(good, output, margin, min(strides), field)


def next_good_size(model: EncoderDecoder, size: tuple[int, int]) -> tuple[int, int]:
    """Smallest (height, width) that the model takes and that is not below `size`."""
    fit = getattr(model.encoder, "next_good_size", lambda n: n)  # only unpadded nets are choosy
    return fit(size[0]), fit(size[1])
