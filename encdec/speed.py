"""How fast this machine trains, measured on one small network; and from that how long a step of
another will take."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.summary import flops
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer
from encdec.train.step import create_state, train_step

BACKWARD = 3
"""A training step's operations over those of its forward pass: the gradient has two products, of
the map and of the kernel, for each one there."""

MEASURED = EncoderDecoder(ResNet((1, 1), width=32), FPN((4, 8), channels=64), Pixel(8))
"""Small, so that it compiles in a few seconds."""

SIDE, BATCH = 128, 8


def training_speed(seconds: float = 1.0) -> tuple[float, float]:
    """(operations a second that training reaches on one device, seconds that compiling took).

    Measured on steps of a small FPN, batches of 8 images of 128x128 pixels, float32; at least three
    steps, of which the fastest counts: what else the machine does makes a step slower only.

    Args:
      seconds: to measure for, after compiling.
    """
    size, optimizer = (SIDE, SIDE), Optimizer()
    state = create_state(MEASURED, optimizer, (1, *size, 3), 0, 1000)
    parts = {"model": MEASURED, "task": Segment(8), "optimizer": optimizer, "steps": 1000}
    step = jax.jit(partial(train_step, **parts, augment=lambda key, batch: batch))
    batch = {
        "image": jnp.full((BATCH, *size, 3), 0.5),
        "label": jnp.zeros((BATCH, *size), jnp.int32),
    }
    key = jax.random.key(0)

    def once() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, batch, key))

    compiled, fastest = first_and_fastest(once, seconds)
    return BACKWARD * BATCH * flops(MEASURED, size) / fastest, compiled


def first_and_fastest(call: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Seconds of the first call and, of three or more for at least `seconds`, of the fastest."""
    taken: list[float] = []
    while len(taken) < 4 or sum(taken[1:]) < seconds:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken[0], min(taken[1:])


def step_seconds(model: EncoderDecoder, size: tuple[int, int], batch: int, speed: float) -> float:
    """Seconds that a training step of the model takes, if it trains as fast as `training_speed`.

    Args:
      size: (height, width) of the images.
      batch: images on each device.
      speed: operations a second of one device.
    """
    return BACKWARD * batch * flops(model, size) / speed


def said_step(model: EncoderDecoder, size: tuple[int, int], batch: int, steps: int) -> str:
    """The line on a step's time, estimated by a measurement on the first device, taken now."""
    number, kind = jax.device_count(), jax.devices()[0].device_kind
    speed, _ = training_speed()
    seconds = step_seconds(model, size, -(-batch // number), speed)
    work = BACKWARD * batch * flops(model, size) / 1e9
    whole = seconds * steps
    long = f"{whole:,.0f} s" if whole < 120 else f"{whole / 60:,.0f} minutes"
    return (
        f"estimated from {speed / 1e9:,.1f} GFLOP/s, measured now on a small FPN in float32: "
        f"{work:,.1f} GFLOPs a step, {seconds:,.2g} s on {number} x {kind}, {long} "
        f"for {steps:,} steps, compiling and evaluation not counted"
    )
