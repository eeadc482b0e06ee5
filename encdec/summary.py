"""What a model is made of, before any compile."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from encdec.geometry import geometry
from encdec.model import EncoderDecoder
from encdec.train.state import count


def flops(model: EncoderDecoder, size: tuple[int, int], channels: int = 3) -> float:
    """Floating point operations of one image's forward pass, as XLA counts them."""
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.jit(model.apply).lower(variables, images).cost_analysis()["flops"]


def parameters(model: EncoderDecoder, channels: int = 3) -> dict[str, int]:
    """Number of parameters by part; 0 for a part without any."""
    size = geometry(model, (64, 64), channels).input
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {part: count(params.get(part, {})) for part in ("encoder", "decoder", "head")}


def summary(model: EncoderDecoder, size: tuple[int, int], channels: int = 3) -> str:
    """Layers with output shapes, parameters and FLOPs for one image; then the geometry."""
    geo = geometry(model, size, channels)
    images = jax.ShapeDtypeStruct((1, *geo.input, channels), jnp.float32)
    table = nn.tabulate(
        model, jax.random.key(0), depth=2, compute_flops=True, console_kwargs={"width": 120}
    )(images)
    return table + str(geo)
