"""What our networks and PyTorch's are given: weights, images and cotangents that follow from names.

Neither encdec nor torch is imported here.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
WHOLE = 1000
"""Arrays with more values are stored as a sketch."""


@dataclass(frozen=True)
class Case:
    """One network, scaled down, and what it sees.

    Attributes:
      size: of the images: (b, h, w, c).
      seed: of the images; one for which no ReLU or pooling is so near its kink that rounding
        changes the gradients (`make` checks that).
      train: BatchNorm by the batch, all outputs; nothing is dropped.
    """

    size: tuple[int, int, int, int]
    seed: int = 0
    train: bool = False


SMALL, TILE, WIDE, PAIR = (1, 37, 51, 3), (1, 188, 204, 1), (1, 64, 96, 3), (2, 40, 56, 3)
LOW = (1, 32, 64, 3)
CASES = {
    "fcn32s": Case(SMALL),
    "fcn16s": Case(SMALL),
    "fcn8s": Case(SMALL),
    "fcn8s_learned": Case(SMALL),
    "fcn8s_at_once": Case(SMALL),
    "fcn_alexnet": Case(SMALL),
    "fcn_alexnet_learned": Case(SMALL),
    "unet": Case(TILE),
    "unet_released": Case(TILE, 1),
    "semantic_fpn": Case(WIDE, 1),
    "dilated_fcn": Case(PAIR, 1),
    "dilated_fcn_train": Case(PAIR, train=True),
    "smp_unet": Case(LOW, 2),
    "smp_unet_scse": Case(LOW, 39),
    "smp_fpn": Case(WIDE),
}

STEPS, RATE = Case((4, 32, 64, 3), 4, train=True), 0.003
"""What five steps of SGD see, and their learning rate."""


def draw(name: str, *size: int) -> np.ndarray:
    """N(0, 1); the same for the same name, everywhere."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=size)


def weight(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter or statistic by its path in our tree, in our layout (kernels h, w, in, out).

    Kernels keep the scale of what they read; no kernel is symmetric, no norm idle.
    """
    normal, kind = draw(path, *shape), path.split("/")[-1]
    if kind == "kernel":
        transposed = "upsample" in path or "deconvolution" in path
        inputs = 4 * shape[2] if transposed else np.prod(shape[:-1])
        # AlexNet's maps must be large for its response normalisation to matter, and what opens
        # the gates of an attention small, or they are all open or shut.
        gain = 200 if path == "encoder/conv1/kernel" and shape[0] == 11 else 1
        gain = 0.1 if "attention" in path else gain
        normal = abs(normal) if "squeeze" in path else normal  # few channels: none may be shut
        return gain * normal * np.sqrt(2 / inputs)
    return {
        "bias": lambda: 0.3 + 0.2 * normal,
        "scale": lambda: 1 + 0.2 * normal,
        "mean": lambda: 0.2 * normal,
        "var": lambda: np.exp(0.3 * normal),
    }[kind]()


def images(case: Case) -> np.ndarray:
    """In [0, 1], smooth at a scale of a few pixels."""
    b, h, w, c = case.size
    coarse = draw(f"images {case.seed}", b, -(-h // 4), -(-w // 4), c)
    smooth = coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w]
    return 1 / (1 + np.exp(-smooth - 0.5 * draw(f"noise {case.seed}", b, h, w, c)))


def labels(case: Case, classes: int) -> np.ndarray:
    """True classes, a tenth of them 255, in blocks of 8x8."""
    b, h, w, _ = case.size
    blocks = draw(f"labels {case.seed}", b, h // 8, w // 8)
    ids = np.where(blocks > 1.3, 255, np.floor(blocks * 100) % classes).astype(int)
    return ids.repeat(8, 1).repeat(8, 2)


def cotangent(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of an output in the loss, whose gradients are compared."""
    return draw(f"cotangent of {name}", *shape)


def sketch(name: str, values: np.ndarray) -> np.ndarray:
    """The values; of many, 300 at random places, then 4 random projections of all."""
    flat = np.asarray(values, np.float64).ravel()
    if flat.size <= WHOLE:
        return flat.astype(np.float32)
    places = np.argsort(draw(f"places in {name}", flat.size))[:300]
    projections = [draw(f"projection {i} of {name}", flat.size) @ flat for i in range(4)]
    both = np.concatenate([flat[places], np.array(projections) / np.sqrt(flat.size)])
    return both.astype(np.float32)


def stored(name: str) -> dict[str, np.ndarray]:
    """Sketches of a case's outputs and gradients, by "output/…" and "gradient/…"."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def difference(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest, as a share of the largest value of the same layer; and of which array.

    It is infinite where shapes differ or a value is not a number.
    """
    scales: dict[str, float] = {}
    for name, values in others.items():
        layer = name.rpartition("/")[0]
        scales[layer] = max(scales.get(layer, 0.0), float(np.abs(values).max()))

    def share(name: str) -> float:
        if some[name].shape != others[name].shape or not np.isfinite(some[name]).all():
            return np.inf
        return float(np.abs(some[name] - others[name]).max()) / scales[name.rpartition("/")[0]]

    return max((share(name), name) for name in others)
