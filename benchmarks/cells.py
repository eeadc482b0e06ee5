"""U-Net's elastic deformation and weight map at 512x512, beside what they replace."""

from collections.abc import Callable
from itertools import cycle

import jax
import numpy as np
from scipy import ndimage

from benchmarks.timing import paired
from encdec.data.augment import Augment
from encdec.data.border import Border

SIDE, CELLS = 512, 150
PLAIN = Augment((SIDE, SIDE), rotate=180.0, border="mirror")
ELASTIC = Augment((SIDE, SIDE), rotate=180.0, border="mirror", elastic=10.0)


def rows(*, rounds: int) -> list[dict[str, object]]:
    """One row for each contender, compared with the first of its work."""
    label, instances = cells(np.random.default_rng(0))
    border = Border()
    np.testing.assert_allclose(border(label, instances), brute(label, instances), atol=1e-5)
    works = {
        "augmentation of a batch of one": {
            "rotation": augmenter(PLAIN, label),
            "rotation and elastic deformation": augmenter(ELASTIC, label),
        },
        f"weight map of {instances.max()} cells, once an image": {
            "a distance transform of the image for each cell": lambda: brute(label, instances),
            "encdec": lambda: border(label, instances),
        },
    }
    return [
        {
            "work": work,
            "by": name,
            "ms": timing.median_ms,
            "ratio": timing.ratio,
            "quiet rounds": f"{timing.quiet} of {rounds}",
        }
        for work, calls in works.items()
        for name, timing in paired(calls, rounds=rounds).items()
    ]


def cells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Label and instances: the cells of random seeds, with a membrane of three pixels between."""
    seeds = np.zeros((SIDE, SIDE), np.int32)
    places = rng.choice(SIDE**2, CELLS, replace=False)
    seeds.flat[places] = np.arange(1, CELLS + 1)
    nearest = ndimage.distance_transform_edt(
        seeds == 0, return_distances=False, return_indices=True
    )
    ids = seeds[tuple(nearest)]
    membrane = ndimage.maximum_filter(ids, 3) != ndimage.minimum_filter(ids, 3)
    instances = np.where(membrane, 0, ids).astype(np.int32)
    return (instances > 0).astype(np.uint8), instances


def brute(label: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Equation 2 as it stands."""
    numbers = np.unique(instances[instances > 0])
    far = [ndimage.distance_transform_edt(instances != number) for number in numbers]
    first, second = np.partition(far, 1, axis=0)[:2]
    balance = Border(w0=0.0)(label, instances)
    return balance + np.where(label == 0, 10 * np.exp(-((first + second) ** 2) / 50), 0)


def augmenter(augment: Augment, label: np.ndarray) -> Callable[[], object]:
    """Calls that augment one image with label; draws change from call to call."""
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    batch = {"image": image, "label": label[None], "index": np.zeros(1, np.int32)}
    batch = jax.device_put(batch | {"size": np.full((1, 2), SIDE, np.int32)})
    keys = list(jax.random.split(jax.random.key(0), 16))
    compiled, key = jax.jit(augment.__call__).lower(keys[0], batch).compile(), cycle(keys)
    return lambda: jax.block_until_ready(compiled(next(key), batch))
