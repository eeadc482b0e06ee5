"""What a model is made of, before any compile."""

import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from encdec.geometry import geometry
from encdec.layers import ConvTranspose
from encdec.memory import step_memory
from encdec.model import EncoderDecoder
from encdec.train.optimizer import Optimizer
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


def summary(
    model: EncoderDecoder,
    size: tuple[int, int],
    channels: int = 3,
    batch: int = 8,
    optimizer: Optimizer = Optimizer(),  # noqa: B008 (frozen)
) -> str:
    """A table of the layers: output shape, parameters, FLOPs of one image; then the geometry, and
    the memory in MiB of a training step on `batch` images (`step_memory`).

    FLOPs are those of the convolutions and fully connected layers, a multiplication and an addition
    counted as two.
    """
    geo = geometry(model, size, channels)
    images = jax.ShapeDtypeStruct((1, *geo.input, channels), jnp.float32)
    shapes: dict[tuple[str, ...], str] = {}
    work: Counter[tuple[str, ...]] = Counter()

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        outputs, module = call(*args, **kwargs), context.module
        if context.method_name == "__call__":
            path, shown = module.path, outputs
            if isinstance(outputs, dict):  # anchors are no layer's
                shown = {name: x for name, x in outputs.items() if name != "anchors"}
            sizes = ["x".join(map(str, x.shape[1:])) for x in jax.tree.leaves(shown)]
            shapes.setdefault(path, "  ".join(sizes))  # a head's layer: at the finest level
            if isinstance(module, nn.Conv | nn.Dense | nn.DenseGeneral | ConvTranspose):
                if isinstance(module, ConvTranspose):  # a fixed one has no parameters
                    cells, inner = math.prod(args[0].shape[:-1]), args[0].shape[-1]
                    size = module.kernel**2 * inner * module.channels
                else:
                    cells = math.prod(outputs.shape[:-1])
                    size = module.get_variable("params", "kernel").size
                operations = 2 * cells * size
                work.update({path[:depth]: operations for depth in range(len(path) + 1)})
        return outputs

    with nn.intercept_methods(record):
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rows = [("layer", "output", "parameters", "MFLOPs")]
    for path in sorted((path for path in shapes if 0 < len(path) <= 2), key=list(shapes).index):
        tree = params
        for name in path:
            tree = tree.get(name, {})
        rows.append(("/".join(path), shapes[path], f"{count(tree):,}", f"{work[path] / 1e6:,.1f}"))
    rows.append(("all", shapes[()], f"{count(params):,}", f"{work[()] / 1e6:,.1f}"))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:{wide[0]}}  {b:{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}".rstrip()
        for a, b, c, d in rows
    ]
    lines.insert(1, "-" * (sum(wide) + 6))
    stride, field = geo.stride, geo.receptive_field
    fits = f"input {geo.input}, output {geo.output}, margin {geo.margin}, stride {stride}"
    held = step_memory(model, geo.input, batch, optimizer, channels) / 2**20
    needs = f"training on {batch} image{'s' * (batch > 1)}: about {held:,.0f} MiB"
    return "\n".join([*lines, f"{fits}, receptive field {field}", needs])
