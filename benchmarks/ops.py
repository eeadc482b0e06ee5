"""Single layers, forward and gradient: ours against linen's or jax.image's form of the same."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks.timing import paired
from encdec import layers

Form = Callable[..., jax.Array]


def linen_up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    size, width = kernel.shape[0], kernel.shape[-1]
    module = nn.ConvTranspose(width, (size, size), (stride(size),) * 2, use_bias=False)
    return module.apply({"params": {"kernel": kernel}}, x)


def our_up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return layers.conv_transpose(x, kernel, stride(kernel.shape[0]))


def conv(
    of: Callable[..., nn.Module], x: jax.Array, kernel: jax.Array, *, stride: int = 1
) -> jax.Array:
    groups = x.shape[-1] // kernel.shape[2]
    module = of(
        kernel.shape[-1], kernel.shape[:2], stride, feature_group_count=groups, use_bias=False
    )
    return module.apply({"params": {"kernel": kernel}}, x)


def stride(size: int) -> int:
    """U-Net's kernels are as large as the stride, FCN's twice."""
    return max(2, size // 2)


def linen_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    params = {"params": {"scale": scale, "bias": bias}}
    stats = {"batch_stats": {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}}
    module = nn.BatchNorm(False, momentum=0.9, epsilon=1e-5)
    return nn.relu(module.apply(params | stats, x, mutable=["batch_stats"])[0])


def our_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return layers.batch_norm(x, scale, bias, True, None)[0]


def resized(x: jax.Array, factor: int, method: str) -> jax.Array:
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, h * factor, w * factor, c), method)


def pool_3x3(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def pool_2x2(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


# Name: ours, linen's, shapes of the arguments.
OPS: dict[str, tuple[Form, Form, tuple[tuple[int, ...], ...]]] = {
    "convolution 7x7, 4²x256 -> 512": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 4, 4, 256), (7, 7, 256, 512)),
    ),
    "convolution 3x3, 128²x64 -> 32": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 128, 128, 64), (3, 3, 64, 32)),
    ),
    "convolution 1x1, 64²x32 -> 192": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 64, 64, 32), (1, 1, 32, 192)),
    ),
    "depthwise 3x3, 128²x96": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 128, 128, 96), (3, 3, 1, 96)),
    ),
    "depthwise 3x3/2, 128²x96": (
        partial(conv, layers.Conv, stride=2),
        partial(conv, nn.Conv, stride=2),
        ((4, 128, 128, 96), (3, 3, 1, 96)),
    ),
    "depthwise 7x7, 32²x192": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 32, 32, 192), (7, 7, 1, 192)),
    ),
    "convolution 3x3 in 32 groups, 56²x128": (
        partial(conv, layers.Conv),
        partial(conv, nn.Conv),
        ((4, 56, 56, 128), (3, 3, 4, 128)),
    ),
    "up-convolution 2x2, 64²x128 -> 64": (our_up, linen_up, ((4, 64, 64, 128), (2, 2, 128, 64))),
    "up-convolution 2x2, 128²x64 -> 32": (our_up, linen_up, ((4, 128, 128, 64), (2, 2, 64, 32))),
    "deconvolution 4x4/2, 56²x21": (our_up, linen_up, ((4, 56, 56, 21), (4, 4, 21, 21))),
    "deconvolution 16x16/8, 28²x21": (our_up, linen_up, ((4, 28, 28, 21), (16, 16, 21, 21))),
    "max pool 2x2, 256²x32": (layers.max_pool, pool_2x2, ((4, 256, 256, 32),)),
    "max pool 2x2, 64²x128": (layers.max_pool, pool_2x2, ((4, 64, 64, 128),)),
    "max pool 3x3/2, 128²x64": (layers.max_pool_3x3, pool_3x3, ((4, 128, 128, 64),)),
    "nearest x2, 64²x128": (
        lambda x: layers.nearest(x, 2),
        lambda x: resized(x, 2, "nearest"),
        ((4, 64, 64, 128),),
    ),
    "bilinear x2, 64²x128": (
        lambda x: layers.bilinear(x, 2),
        lambda x: resized(x, 2, "bilinear"),
        ((4, 64, 64, 128),),
    ),
    "BatchNorm + ReLU, 256²x32": (our_norm, linen_norm, ((4, 256, 256, 32), (32,), (32,))),
    "BatchNorm + ReLU, 64²x128": (our_norm, linen_norm, ((4, 64, 64, 128), (128,), (128,))),
}


def rows(*, rounds: int) -> list[dict[str, object]]:
    """One row for each layer: milliseconds of linen's form, and ours as a share of it."""
    table = []
    for name, (ours, theirs, shapes) in OPS.items():
        rng = np.random.default_rng(0)
        arguments = [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]
        calls = {"linen": both(theirs, arguments), "encdec": both(ours, arguments)}
        found = paired(calls, rounds=rounds)
        table.append(
            {
                "forward and gradient of": name,
                "linen ms": found["linen"].median_ms,
                "encdec ms": found["encdec"].median_ms,
                "encdec / linen": found["encdec"].ratio,
                "processor time": found["encdec"].cpu_ratio,
                "quiet rounds": f"{found['encdec'].quiet} of {rounds}",
            }
        )
    return table


def both(form: Form, arguments: list[jax.Array]) -> Callable[[], object]:
    """The value and all gradients; the value is returned, or XLA would drop it."""

    def call(*arguments: jax.Array) -> tuple:
        value, pull = jax.vjp(form, *arguments)
        return value, pull(value)

    compiled = jax.jit(call).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))
