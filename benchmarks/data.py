"""Augmentation beside cv2.remap and map_coordinates; the loader's rate."""

import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from PIL import Image

from benchmarks.timing import paired
from encdec.arrays import IGNORE
from encdec.data.augment import Augment
from encdec.data.datasets import Folder
from encdec.data.pipeline import train_batches

AUGMENT = Augment((256, 256), scale=(0.8, 1.25), rotate=30.0)
CANVAS, BATCH, CLASSES = (512, 512), 8, 11
CAMVID, FILES, READ = (360, 480), 64, 64
"""Rows and columns of a file, how many there are, batches in a round."""

Draw = tuple[np.ndarray, np.ndarray]
"""Centre of the crop (2,) in the image and matrix (2, 2) from the crop to it; (y, x), pixels."""


def rows(*, rounds: int) -> list[dict[str, object]]:
    """One row for each contender that augments a batch, and one for the loader alone."""
    found = paired(augmenters(), rounds=rounds)
    work = {name: ("flip, scale, rotate, crop", BATCH, timing) for name, timing in found.items()}
    with tempfile.TemporaryDirectory() as folder:
        read = paired({"train_batches": reader(Path(folder))}, rounds=rounds)["train_batches"]
    work["train_batches"] = ("360x480 PNG files", BATCH * READ, read)
    return [
        {
            "by": name,
            "work": what,
            "ms a batch": timing.median_ms * BATCH / images,
            "images a second": 1e3 * images / timing.median_ms,
            "ratio": timing.ratio if name in found else None,
            "processor time": timing.cpu_ratio if name in found else None,
            "quiet rounds": f"{timing.quiet} of {rounds}",
        }
        for name, (what, images, timing) in work.items()
    ]


def augmenters() -> dict[str, Callable[[], object]]:
    """Calls that augment one batch of images and masks; draws change from call to call."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *CANVAS, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, (BATCH, *CANVAS)).astype(np.uint8)
    draws = [[drawn(rng) for _ in range(BATCH)] for _ in range(16)]

    batch = {"image": images, "label": labels, "index": np.arange(BATCH, dtype=np.int32)}
    batch = jax.device_put(batch | {"size": np.tile(np.int32(CANVAS), (BATCH, 1))})
    keys = list(jax.random.split(jax.random.key(0), 16))
    ours = jax.jit(AUGMENT.__call__).lower(keys[0], batch).compile()
    stacked = [[jnp.stack(part) for part in zip(*draw, strict=True)] for draw in draws]
    naive = jax.jit(jax.vmap(mapped)).lower(batch["image"], batch["label"], *stacked[0]).compile()
    draw, stack, key = cycle(draws), cycle(stacked), cycle(keys)
    return {
        "cv2.remap": lambda: remapped(images, labels, next(draw)),
        "encdec": lambda: jax.block_until_ready(ours(next(key), batch)),
        "map_coordinates": lambda: jax.block_until_ready(
            naive(batch["image"], batch["label"], *next(stack))
        ),
    }


def drawn(rng: np.random.Generator) -> Draw:
    """As `Augment` draws: a mirror image or not, scale, angle, and a crop within the image."""
    mirror, angle = rng.choice([-1, 1]), np.deg2rad(rng.uniform(-1, 1) * AUGMENT.rotate)
    scale = np.exp(rng.uniform(*np.log(AUGMENT.scale)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn * [1, mirror] / scale
    reach = np.abs(matrix) @ AUGMENT.size / 2
    centre = reach + rng.uniform(size=2) * (CANVAS - 2 * reach)
    return centre.astype(np.float32), matrix.astype(np.float32)


def field(centre: np.ndarray, matrix: np.ndarray) -> list[np.ndarray]:
    """y and x of each pixel of the crop, in pixels whose centres are whole numbers."""
    rows, columns = (np.arange(n, dtype=np.float32) + 0.5 - n / 2 for n in AUGMENT.size)
    rows, columns = rows[:, None], columns[None]
    return [centre[i] - 0.5 + matrix[i, 0] * rows + matrix[i, 1] * columns for i in (0, 1)]


def remapped(images: np.ndarray, labels: np.ndarray, draws: list[Draw]) -> tuple:
    """Float images in [0, 1] and int32 labels."""
    moved = np.empty((len(images), *AUGMENT.size, 3), np.float32)
    ids = np.empty(moved.shape[:3], np.int32)
    for i, draw in enumerate(draws):
        y, x = field(*draw)
        image = cv2.remap(images[i], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.multiply(image, np.float32(1 / 255), out=moved[i])
        ids[i] = cv2.remap(labels[i], x, y, cv2.INTER_NEAREST, borderValue=IGNORE)
    return moved, ids


def mapped(image: jax.Array, label: jax.Array, centre: jax.Array, matrix: jax.Array) -> tuple:
    """The same for one example by jax.scipy, a channel at a time."""
    at, image = field(centre, matrix), image.astype(jnp.float32) / 255
    channels = [map_coordinates(image[..., i], at, order=1, mode="nearest") for i in range(3)]
    label = map_coordinates(label.astype(jnp.int32), at, order=0, mode="constant", cval=IGNORE)
    return jnp.stack(channels, -1), label


def reader(root: Path) -> Callable[[], object]:
    """Draws image and mask files; the call reads so many batches that read-ahead counts little."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / "train" / folder).mkdir(parents=True)
    for i in range(FILES):
        coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(CAMVID[::-1], Image.Resampling.BICUBIC))
        image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
        mask = rng.integers(0, CLASSES, (12, 16)).astype(np.uint8).repeat(30, 0).repeat(30, 1)
        Image.fromarray(image).save(root / "train" / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "train" / "masks" / f"{i}.png")
    names = tuple(f"class {i}" for i in range(CLASSES))
    batches = train_batches(Folder(root, names=names, canvas=CAMVID), batch=BATCH, seed=0)
    return lambda: [next(batches) for _ in range(READ)]
