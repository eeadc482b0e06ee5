"""A PyTorch network's weights in ours, layer by layer in the order in which they run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn

from encdec.layers import standardise
from encdec.model import EncoderDecoder

Layer = dict[str, np.ndarray]


def ported(model: EncoderDecoder, net: torch.nn.Module, images: np.ndarray) -> dict[str, Any]:
    """The model's variables with the network's weights; fresh BatchNorm statistics."""
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params: dict[str, Any] = {}
    for path, layer in zip(our_layers(model, images), torch_layers(net, images), strict=True):
        *above, last = path
        tree = params
        for name in above:
            tree = tree.setdefault(name, {})
        tree[last] = layer
    same = jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
        lambda x: x.shape, variables["params"]
    )
    if not same:
        raise AssertionError("the two networks' layers do not run in one order")
    stats = jax.tree.map_with_path(
        lambda path, x: jnp.full(x.shape, path[-1].key == "var", x.dtype),
        {name: tree for name, tree in variables.items() if name != "params"},
    )
    return {"params": jax.tree.map(jnp.asarray, params), **stats}


def our_layers(model: EncoderDecoder, images: np.ndarray) -> list[tuple[str, ...]]:
    """Paths of the modules with parameters of their own, as they run; a head's coarse level first,
    as smp has it."""
    paths = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        outputs, path = call(*args, **kwargs), context.module.path
        own = context.module.variables.get("params", {})
        if context.method_name == "__call__" and any(hasattr(x, "shape") for x in own.values()):
            paths.append(path)
        return outputs

    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), images)

    def level(path: tuple[str, ...]) -> int:
        staged = path[0] == "head" and path[1].startswith("stage_s")
        return -int(path[1].removeprefix("stage_s").split("_")[0]) if staged else 0

    first = next((i for i, path in enumerate(paths) if level(path)), len(paths))
    body, head = paths[:first], paths[first:]
    return body + sorted(head[:-1], key=level) + head[-1:]


def torch_layers(net: torch.nn.Module, images: np.ndarray) -> list[Layer]:
    """Parameters of the modules as they run, under linen's names and in its layout."""
    layers = []

    def record(module: torch.nn.Module, *_: Any) -> None:
        own = dict(module.named_parameters(recurse=False))
        weight = own["weight"].detach().numpy()
        if isinstance(module, torch.nn.ConvTranspose2d):  # a kernel there runs the other way
            layer = {"kernel": weight.transpose(2, 3, 0, 1)[::-1, ::-1]}
        elif isinstance(module, torch.nn.Conv2d):
            layer = {"kernel": weight.transpose(2, 3, 1, 0)}
        else:
            layer = {"scale": weight}
        if "bias" in own:
            layer["bias"] = own["bias"].detach().numpy()
        layers.append({name: array.copy() for name, array in layer.items()})

    modules = [m for m in net.modules() if list(m.parameters(recurse=False))]
    hooks = [module.register_forward_hook(record) for module in modules]
    with torch.inference_mode():
        net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return layers


def difference(ours: jax.Array, theirs: torch.Tensor) -> float:
    """Largest difference of the logits, as a share of the largest logit."""
    theirs = theirs.permute(0, 2, 3, 1).float().cpu().numpy()
    return float(np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max())


def pixels(model: EncoderDecoder, images: np.ndarray) -> np.ndarray:
    """What our encoder makes of the images before its first layer."""
    return np.asarray(standardise(jnp.asarray(images), model.encoder.mean, model.encoder.std))
