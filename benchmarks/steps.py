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
from benchmarks.port import difference, pixels, ported
from benchmarks.timing import Timing, paired
from encdec.losses import cross_entropy
from encdec.model import EncoderDecoder
from encdec.random import initial_key
from encdec.summary import flops

RATE, MOMENTUM = 0.01, 0.9
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows(
    *,
    size: int,
    batch: int,
    rounds: int,
    names: tuple[str, ...],
    precision: str,
    compiled: bool,
) -> list[dict[str, object]]:
    """One row for each network, kind of work and contender."""
    table = []
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    products = {"tf32": "tensorfloat32", "float32": "float32", "bfloat16": None}[precision]
    jax.config.update("jax_default_matmul_precision", products)
    for name in names or tuple(NETWORKS):
        pair = NETWORKS[name]
        work = flops(pair.ours, (size, size)) * batch / 1e6
        for kind, timings in times(pair, size, batch, rounds, precision, compiled).items():
            peak = timings.pop(PROBE)
            rate = 2 * PROBED**3 / 1e6 / peak.median_ms
            for contender, timing in timings.items():
                done = (3 if kind == "step" else 1) * work / timing.median_ms
                row = {"network": name, "work": kind, "by": contender, **vars(timing)}
                table.append(row | {"share of peak": done / rate})
    return table


PROBE, PROBED = "matmul", 2048
"""The machine's peak: PyTorch's product of two square matrices, in the same rounds.

Work is XLA's count of the forward pass; a step is counted as three, whatever it recomputes.
"""


def times(
    pair: Pair, size: int, batch: int, rounds: int, precision: str, compiled: bool
) -> dict[str, dict[str, Timing]]:
    """By "step" and "forward", of equal networks: their logits are compared first."""
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32)
    labels = rng.integers(0, pair.classes, (batch, size, size)).astype(np.int32)
    net = pair.theirs()
    variables = ported(pair.ours, net, images)
    net = torch.compile(net) if compiled else net
    model, half = pair.ours, precision == "bfloat16"
    theirs = torch_calls(net, pixels(model, images), labels, half)
    model = model.clone(dtype="bfloat16") if half else model
    ours = jax_calls(model, variables, images, labels)
    with linen_layers():
        naive = jax_calls(model, variables, images, labels)
    allowed = 1e-4 if precision == "float32" else 0.1
    for calls in (ours, naive):
        if (error := difference(calls["forward"](), theirs["forward"]())) > allowed:
            raise AssertionError(f"with equal weights the logits differ by {error:.1e}")
    matrix = torch.ones(PROBED, PROBED, device=DEVICE)
    return {
        work: paired(
            {
                "PyTorch": theirs[work],
                "encdec": ours[work],
                "linen's layers": naive[work],
                PROBE: lambda: finished(matrix @ matrix),
            },
            rounds=rounds,
        )
        for work in ("step", "forward")
    }


def finished(result: torch.Tensor) -> torch.Tensor:
    """The result, once the device has it."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


def torch_calls(
    net: torch.nn.Module, images: np.ndarray, labels: np.ndarray, half: bool
) -> dict[str, Callable]:
    step, x = torch_step(net, images, labels, half), torch_images(images)

    def forward() -> torch.Tensor:
        net.eval()
        with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, half):
            return finished(net(x))

    return {"step": step, "forward": forward}


def torch_images(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.copy()).to(DEVICE).permute(0, 3, 1, 2)  # channels_last as it is


def torch_step(
    net: torch.nn.Module, images: np.ndarray, labels: np.ndarray, half: bool = False
) -> Callable:
    net = net.to(DEVICE, memory_format=torch.channels_last)
    x, y = torch_images(images), torch.from_numpy(labels.astype(np.int64)).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> float:
        net.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, half):
            loss = functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_calls(
    model: EncoderDecoder, variables: dict, images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable]:
    apply = jax.jit(lambda variables, images: model.apply(variables, images)["logits"])
    images = jnp.asarray(images)
    evaluate = apply.lower(variables, images).compile()
    return {
        "step": jax_step(model, images, labels),
        "forward": lambda: jax.block_until_ready(evaluate(variables, images)),
    }


def jax_step(model: EncoderDecoder, images: np.ndarray, labels: np.ndarray) -> Callable:
    """Initialises the model and compiles its step."""
    return stepper(*compiled_step(model, images, labels))


def compiled_step(model: EncoderDecoder, images: np.ndarray, labels: np.ndarray) -> tuple:
    """The compiled step, its first state, images, labels."""
    optimizer = optax.sgd(RATE, MOMENTUM)
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    @jax.jit
    def first(key: jax.Array) -> tuple:
        variables = dict(model.init(key, images[:1]))
        params = variables.pop("params")
        return params, variables, optimizer.init(params)

    def update(state: tuple, images: jax.Array, labels: jax.Array) -> tuple:
        params, stats, opt = state

        def loss_fn(params: dict) -> tuple:
            variables = {"params": params, **stats}
            outputs, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
            total, pixels = cross_entropy(outputs["logits"], labels)
            return total / pixels, new

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), stats, opt), loss

    state = first(initial_key(0))
    compiled = jax.jit(update, donate_argnums=0).lower(state, images, labels).compile()
    return compiled, state, images, labels


def stepper(compiled: Callable, first: tuple, images: jax.Array, labels: jax.Array) -> Callable:
    state = [first]

    def step() -> float:
        state[0], loss = compiled(state[0], images, labels)
        return float(loss)

    return step


def linen_layers() -> ExitStack:
    """While it is open, networks are traced with the layers that linen and jax.image have."""

    def deconvolved(x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> jax.Array:
        return lax.conv_transpose(x, kernel, (stride, stride), padding)

    class BatchNorm(nn.Module):
        relu: bool
        dtype: str | None
        epsilon: float
        momentum: float

        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            linen = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon)
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
