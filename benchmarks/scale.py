"""How cost grows: with the image, batch, classes, depth, simulated devices and bands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from flax import linen as nn

from benchmarks.timing import paired
from encdec import parallel
from encdec.data.augment import Augment
from encdec.data.datasets import Shapes
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.memory import forward_memory
from encdec.model import EncoderDecoder
from encdec.predict import predict
from encdec.random import initial_key
from encdec.tasks.segment import Segment
from encdec.tiles import plan
from encdec.train.loop import first_state, trainer
from encdec.train.optimizer import Optimizer

DECODERS: dict[str, Callable[[int], tuple[nn.Module, nn.Module]]] = {
    "FCN-8s": lambda classes: (FCN(channels=classes), Pixel(classes, scores=True)),
    "U-Net": lambda classes: (
        UNet((2, 4, 8, 16, 32), (64, 32, 16, 16), refine=DoubleConv(norm="batch")),
        Pixel(classes),
    ),
    "FPN": lambda classes: (FPN(channels=64), Merge(classes, 32)),
}
SIDES, BATCHES, CLASSES, DEPTHS = (128, 256, 512, 1024), (1, 2, 4, 8), (2, 20, 150), (1, 2, 4)
DEVICES, SHARES = (1, 2, 4, 8), (1.0, 0.6)
"""Simulated devices; of the memory of the whole image, for bands."""


def network(name: str, classes: int = 10, blocks: int = 1) -> EncoderDecoder:
    """The decoder on a ResNet of a quarter of the width, with so many blocks in every stage."""
    return EncoderDecoder(ResNet((blocks,) * 4, width=16), *DECODERS[name](classes))


def rows(*, rounds: int, names: tuple[str, ...]) -> list[dict[str, object]]:
    """One row for each decoder and quantity: cost at both ends, and the exponent of its growth."""
    table = []
    for name in names or DECODERS:
        grown = {
            "pixels (side 128 to 1024)": {
                side * side: Step(network(name), side, 1) for side in SIDES
            },
            "batch (128 px)": {batch: Step(network(name), 128, batch) for batch in BATCHES},
            "classes (256 px)": {k: Step(network(name, classes=k), 256, 1) for k in CLASSES},
            "blocks a stage (128 px)": {n: Step(network(name, blocks=n), 128, 4) for n in DEPTHS},
            "bands (2048 px, predicted)": bands(network(name), 2048),
        }
        for quantity, calls in grown.items():
            found = paired({str(n): call for n, call in calls.items()}, rounds=rounds)
            seconds = {n: found[str(n)].median_ms / 1e3 for n in calls}
            memory = {n: call.memory for n, call in calls.items() if hasattr(call, "memory")}
            table.append(row(name, quantity, seconds, memory))
        seconds = {n: on_devices(name, n, rounds) for n in DEVICES}
        table.append(row(name, "simulated devices (batch 8 in all)", seconds, {}))
    return table


def row(
    name: str, quantity: str, seconds: dict[int, float], memory: dict[int, float]
) -> dict[str, object]:
    low, high = min(seconds), max(seconds)
    return {
        "decoder": name,
        "grows with": quantity,
        "from": low,
        "to": high,
        "s at first": seconds[low],
        "s at last": seconds[high],
        "exponent of time": exponent(seconds),
        "exponent of memory": exponent(memory) if memory else None,
    }


def exponent(cost: dict[int, float]) -> float:
    """p of cost ~ n^p, by least squares on logarithms; 1 is in proportion."""
    return float(np.polyfit(np.log(list(cost)), np.log(list(cost.values())), 1)[0])


class Step:
    """A training step of 8-bit images, called again and again; `memory` is XLA's count, bytes."""

    def __init__(self, model: EncoderDecoder, side: int, batch: int) -> None:
        classes, augment = model.head.classes, Augment((side, side))
        rng = np.random.default_rng(0)
        self.batch = {
            "image": rng.integers(0, 256, (batch, side, side, 3), np.uint8),
            "label": rng.integers(0, classes, (batch, side, side), np.uint8),
            "size": np.full((batch, 2), side, np.int32),
            "index": np.arange(batch, dtype=np.int32),
        }
        experiment = Experiment(model, Shapes(), augment, Segment(classes), Optimizer("sgd"))
        self.step, self.state = trainer(experiment), first_state(experiment)
        self.key = parallel.replicate(jax.random.key(0))
        self.memory = self.step.memory(self.state, self.batch, self.key)

    def __call__(self) -> None:
        self.state, losses = self.step(self.state, self.batch, self.key)
        jax.block_until_ready(losses)


def bands(model: EncoderDecoder, side: int) -> dict[int, Callable[[], object]]:
    """Calls that predict one image, by the number of bands that it takes."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    variables = jax.jit(model.init)(initial_key(0), np.zeros((1, 64, 64, 3), np.float32))
    whole, calls = forward_memory(model, image.shape) / 2**30, {}
    for share in SHARES:
        memory = share * whole
        try:
            number = plan(model, image.shape, memory=memory).tiles
        except InputError:  # the halos alone take more
            break
        calls[number] = partial(predict, model, variables, image, memory=memory)
    return calls


def on_devices(name: str, number: int, rounds: int) -> float:
    """Seconds of a step of 8 images over simulated devices, in a process of its own."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={number}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", name, str(rounds)],
        env=os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    call = Step(network(sys.argv[1]), 128, 8)
    print(paired({"step": call}, rounds=int(sys.argv[2]))["step"].median_ms / 1e3)
