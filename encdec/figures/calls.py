"""Every module's call in one run of a network on shapes alone, and its layers in words."""

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from encdec.layers import ConvTranspose


@dataclass(frozen=True)
class Call:
    """A module that ran: `given` and `gives` are shapes, by stride or name where it has several."""

    path: tuple[str, ...]
    module: nn.Module
    given: Any
    gives: Any


def traced(model: nn.Module, image: tuple[int, int, int]) -> tuple[list[Call], Any, Any]:
    """Every module's call, inner ones first; shapes of the variables and of the outputs."""
    calls: list[Call] = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        outputs = call(*args, **kwargs)
        if context.method_name == "__call__":
            given, gives = (jax.tree.map(lambda x: x.shape, found) for found in (args[:1], outputs))
            calls.append(Call(context.module.path, context.module, given[0], gives))
        return outputs

    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    with nn.intercept_methods(record):
        outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    return calls, variables, outputs


def layers(calls: list[Call], path: tuple[str, ...]) -> list[str]:
    """The layers of a module in words: those of each child with one, else the child's class."""
    children: dict[tuple[str, ...], list[nn.Module]] = {}
    classes, seen = {}, set()
    for call in calls:
        if call.path[: len(path)] == path and len(call.path) > len(path) and call.path not in seen:
            seen.add(call.path)  # shared layers run on every level
            child = call.path[: len(path) + 1]
            children.setdefault(child, [])
            classes[child] = spaced(call.module)  # its own comes last
            if isinstance(call.module, nn.Conv | ConvTranspose | nn.Dense | nn.DenseGeneral):
                children[child].append(call.module)
    words = [
        layer(found[0]) if len(found) == 1 else classes[child]
        for child, found in children.items()
        if found
    ]
    runs = [(word, len(list(run))) for word, run in groupby(words)]
    return [word if times == 1 else f"{times} × {word}" for word, times in runs]


def spaced(module: nn.Module) -> str:
    """A module's class, as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(module).__name__).lower()


def layer(module: nn.Module) -> str:
    """A layer in words, with its kernel's size, and its factor or stride."""
    if isinstance(module, ConvTranspose):
        if module.start == "bilinear":
            return f"{module.weights} bilinear ×{module.stride}"
        kind = "up-conv" if module.kernel == module.stride else f"×{module.stride} transposed"
        return f"{kind} {module.kernel}×{module.kernel}"
    if not isinstance(module, nn.Conv):
        return "linear"
    kernel = module.kernel_size
    words = f"conv {'×'.join(map(str, kernel))}"
    for number, sign in ((module.strides, " /{}"), (module.kernel_dilation, " dilated {}")):
        most = max(number) if isinstance(number, tuple | list) else number or 1
        words += sign.format(most) if most > 1 else ""
    return words
