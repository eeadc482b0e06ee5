"""Training step and forward pass of whole networks: PyTorch, ours, ours of linen's layers."""

from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen as nn
from jax import lax
from torch.nn import functional

from benchmarks.networks import NETWORKS, Pair
from benchmarks.ops import pool_2x2, pool_3x3, resized
from benchmarks.timing import Timing, paired
from encdec.layers import norm
from encdec.model import EncoderDecoder
from encdec.random import initial_key
from encdec.train.state import count

RATE, MOMENTUM = 0.01, 0.9


def rows(*, size: int, batch: int, rounds: int, names: tuple[str, ...]) -> list[dict[str, object]]:
    """One row for each network, kind of work and contender."""
    table = []
    for name in names or tuple(NETWORKS):
        for work, timings in times(NETWORKS[name], size, batch, rounds).items():
            for contender, timing in timings.items():
                table.append({"network": name, "work": work, "by": contender, **vars(timing)})
    return table


def times(pair: Pair, size: int, batch: int, rounds: int) -> dict[str, dict[str, Timing]]:
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32)
    labels = rng.integers(0, pair.classes, (batch, size, size)).astype(np.int32)
    theirs = torch_calls(pair, images, labels)
    ours = jax_calls(pair, images, labels)
    with linen_layers():
        naive = jax_calls(pair, images, labels)
    return {
        work: paired(
            {"PyTorch": theirs[work], "encdec": ours[work], "linen's layers": naive[work]},
            rounds=rounds,
        )
        for work in ("step", "forward")
    }


def torch_calls(pair: Pair, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable]:
    net = pair.theirs()
    parameters = sum(p.numel() for p in net.parameters())
    ours = count(jax.eval_shape(pair.ours.init, jax.random.key(0), images)["params"])
    if parameters != ours:
        raise AssertionError(f"theirs has {parameters:,} parameters, ours {ours:,}")
    step, x = torch_step(net, images, labels), torch_images(images)

    def forward() -> torch.Tensor:
        net.eval()
        with torch.inference_mode():
            return net(x)

    return {"step": step, "forward": forward}


def torch_images(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last as it is


def torch_step(net: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> Callable:
    net = net.to(memory_format=torch.channels_last)
    x, y = torch_images(images), torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> float:
        net.train()
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_calls(pair: Pair, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable]:
    variables = jax.jit(pair.ours.init)(initial_key(0), images[:1])
    apply = jax.jit(lambda variables, images: pair.ours.apply(variables, images)["logits"])
    images = jnp.asarray(images)
    evaluate = apply.lower(variables, images).compile()
    return {
        "step": jax_step(pair.ours, images, labels),
        "forward": lambda: jax.block_until_ready(evaluate(variables, images)),
    }


def jax_step(model: EncoderDecoder, images: np.ndarray, labels: np.ndarray) -> Callable:
    """Initialises the model and compiles its step."""
    optimizer = optax.sgd(RATE, MOMENTUM)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    variables = dict(jax.jit(model.init)(initial_key(0), images[:1]))
    params = variables.pop("params")

    def update(state: tuple, images: jax.Array, labels: jax.Array) -> tuple:
        params, stats, opt = state

        def loss_fn(params: dict) -> tuple:
            variables = {"params": params, **stats}
            outputs, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], labels)
            return losses.mean(), new

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), stats, opt), loss

    state = [(params, variables, optimizer.init(params))]
    compiled = jax.jit(update, donate_argnums=0).lower(state[0], images, labels).compile()

    def step() -> float:
        state[0], loss = compiled(state[0], images, labels)
        return float(loss)

    return step


def linen_layers() -> ExitStack:
    """While it is open, networks are traced with the layers that linen and jax.image have."""

    def deconvolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
        return lax.conv_transpose(x, kernel, (stride, stride), "SAME")

    class BatchNorm(nn.Module):
        relu: bool
        dtype: str | None

        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            linen = nn.BatchNorm(not train, momentum=0.9, epsilon=norm.EPSILON)
            nn.share_scope(self, linen)
            y = linen(x)
            return nn.relu(y) if self.relu else y

    stack = ExitStack()
    for place, form in {
        "encdec.encoders.plain.max_pool": pool_2x2,
        "encdec.encoders.vgg.max_pool": pool_2x2,
        "encdec.encoders.resnet.max_pool_3x3": pool_3x3,
        "encdec.layers.nearest": lambda x, factor: resized(x, factor, "nearest"),
        "encdec.heads.merge.bilinear": lambda x, factor: resized(x, factor, "bilinear"),
        "encdec.heads.pixel.bilinear": lambda x, factor: resized(x, factor, "bilinear"),
        "encdec.layers.conv.conv_transpose": deconvolved,
        "encdec.layers.conv.lax.platform_dependent": lambda *args, cpu, default: default(*args),
        "encdec.layers.norm.BatchNorm": BatchNorm,
    }.items():
        stack.enter_context(patch(place, form))
    return stack
