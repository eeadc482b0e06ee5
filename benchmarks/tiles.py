"""A large image, whole and in parts: MONAI's overlapping tiles against bands with an exact halo."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from monai.inferers import sliding_window_inference

from benchmarks.networks import BATCH, Pair, TorchUNet
from benchmarks.timing import paired
from encdec.decoders.unet import UNet
from encdec.encoders.plain import Plain
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.predict import fit_bands, predict
from encdec.random import initial_key

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
MEMORY = (0.25, 0.5, 1.0, 8.0)
"""GiB that encdec's bands may take; the last holds the whole image."""


def rows(*, rounds: int, side: int = SIDE) -> list[dict[str, object]]:
    """One row for each way: seconds for an image, pixels computed for one of the result."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    variables = jax.jit(PAIR.ours.init)(initial_key(0), np.zeros((1, 64, 64, 3), np.float32))
    calls, shares = {f"MONAI, tiles of {TILE}": tiled(image)}, [tile_share(side)]
    calls["PyTorch, whole"], shares = whole(image), [*shares, 1.0]
    for memory in MEMORY:
        bands = fit_bands(PAIR.ours, image.shape, memory)
        number = len(bands.parts)
        name = f"encdec, {memory} GiB: {number} band(s)"
        calls[name] = partial(predict, PAIR.ours, variables, image, memory=memory)
        shares.append(number * bands.window / side)
    found = paired(calls, rounds=rounds)
    return [
        {
            "U-Net 16 on an image of 2048 x 2048": name,
            "seconds": timing.median_ms / 1e3,
            "ratio": timing.ratio,
            "processor time": timing.cpu_ratio,
            "pixels computed": share,
            "quiet rounds": f"{timing.quiet} of {rounds}",
        }
        for (name, timing), share in zip(found.items(), shares, strict=True)
    ]


def tile_share(side: int) -> float:
    """Pixels computed for one of the result."""
    step = int(TILE * (1 - OVERLAP))
    tiles = -(-(side - TILE) // step) + 1
    return (tiles * TILE / side) ** 2


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
