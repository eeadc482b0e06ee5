"""A large image: one compiled walk over parts with an exact halo, a Python loop over the same part
jitted, the whole image at once, and MONAI's overlapping tiles.

Time is taken in turn in one process; memory is what three images add at their peak in a process of
their own, after the first one has compiled everything.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from monai.inferers import sliding_window_inference

from benchmarks.memory import MIB, added
from benchmarks.networks import BATCH, Pair, TorchUNet
from benchmarks.timing import paired
from encdec.decoders.unet import UNet
from encdec.encoders.plain import Plain
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.predict import predict
from encdec.random import initial_key
from encdec.tiles import Grid, plan, shares

SIDE, TILE, OVERLAP = 2048, 256, 0.25
PAIR = Pair(
    EncoderDecoder(
        Plain((16, 32, 64, 128, 256), norm="batch"),
        UNet(channels=(128, 64, 32, 16), refine=BATCH),
        Pixel(2),
    ),
    lambda: TorchUNet(16, 2),
    2,
)
PARTS, ALL = (0.25, 0.5, 1.0), 8.0
"""GiB that the maps may take: in parts, and for the whole image."""

Contender = tuple[Callable[[], np.ndarray], int, float]
"""A call that labels the image, its parts, and how many pixels it computes for one of these."""


def contenders(side: int) -> dict[str, Callable[[], Contender]]:
    """Each by name; made only when it is called."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return {
        f"MONAI, tiles of {TILE}": lambda: (tiled(image), *monai_parts(side)),
        "PyTorch, whole": lambda: (whole(image), 1, 1.0),
        **{f"encdec, {memory} GiB": partial(walked, image, memory) for memory in PARTS},
        f"the same part in a Python loop, {PARTS[0]} GiB": partial(looped, image, PARTS[0]),
        "encdec, whole": partial(walked, image, ALL),
    }


def rows(*, rounds: int, side: int = SIDE) -> list[dict[str, object]]:
    """One row for each way: seconds for an image, pixels computed, memory added."""
    made = {name: make() for name, make in contenders(side).items()}
    found = paired({name: call for name, (call, *_) in made.items()}, rounds=rounds)
    memory = {name: child(name, side) for name in made}
    return [
        {
            f"U-Net 16 on an image of {side} x {side}": name,
            "seconds": timing.median_ms / 1e3,
            "ratio": timing.ratio,
            "processor time": timing.cpu_ratio,
            "parts": made[name][1],
            "pixels computed": made[name][2],
            "added MiB": memory[name]["added"] / MIB,
            "peak from": memory[name]["peak from"],
            "quiet rounds": f"{timing.quiet} of {rounds}",
        }
        for name, timing in found.items()
    ]


def child(name: str, side: int) -> dict:
    """What a new process measures; memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tiles", name, str(side)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def walked(image: np.ndarray, memory: float) -> Contender:
    """encdec's own."""
    grid, model = plan(PAIR.ours, image.shape, memory=memory), PAIR.ours
    return partial(predict, model, weights(), image, memory=memory), *counted(grid, image)


def looped(image: np.ndarray, memory: float) -> Contender:
    """The parts of `walked`, each cut out and put back by numpy."""
    grid, variables = plan(PAIR.ours, image.shape, memory=memory), weights()
    rows, columns = grid.rows, grid.columns
    own_rows, own_columns = shares(rows) > 0, shares(columns) > 0

    @jax.jit
    def part(variables: dict, pixels: jax.Array) -> jax.Array:
        logits = PAIR.ours.apply(variables, pixels[None].astype(jnp.float32) / 255)["logits"]
        return lax.argmax(logits[0], 2, jnp.int32)

    def call() -> np.ndarray:
        canvas = grid.canvas(image)
        labels = np.empty(canvas.shape[:2], np.int32)
        for top, own_y in zip(rows.starts, own_rows, strict=True):
            for left, own_x in zip(columns.starts, own_columns, strict=True):
                place = slice(top, top + rows.window), slice(left, left + columns.window)
                own = own_y[:, None] & own_x
                np.copyto(labels[place], np.asarray(part(variables, canvas[place])), where=own)
        return labels[: image.shape[0], : image.shape[1]]

    return call, *counted(grid, image)


def weights() -> dict:
    return jax.jit(PAIR.ours.init)(initial_key(0), np.zeros((1, 64, 64, 3), np.float32))


def counted(grid: Grid, image: np.ndarray) -> tuple[int, float]:
    """Parts, and pixels computed for one of the result."""
    return grid.tiles, grid.tiles * math.prod(grid.window) / math.prod(image.shape[:2])


def monai_parts(side: int) -> tuple[int, float]:
    """Parts, and pixels computed for one of the result."""
    step = int(TILE * (1 - OVERLAP))
    tiles = -(-(side - TILE) // step) + 1
    return tiles**2, (tiles * TILE / side) ** 2


def tiled(image: np.ndarray) -> Callable[[], np.ndarray]:
    net = PAIR.theirs().eval().to(memory_format=torch.channels_last)

    def call() -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            logits = sliding_window_inference(x, (TILE, TILE), 1, net, overlap=OVERLAP)
            return logits.argmax(1).numpy()

    return call


def whole(image: np.ndarray) -> Callable[[], np.ndarray]:
    net = PAIR.theirs().eval().to(memory_format=torch.channels_last)

    def call() -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            x = x.contiguous(memory_format=torch.channels_last)
            return net(x).argmax(1).numpy()

    return call


if __name__ == "__main__":
    call, *_ = contenders(int(sys.argv[2]))[sys.argv[1]]()
    call()  # compiles
    peak, source = added(call)
    print(json.dumps({"added": peak, "peak from": source}))
