"""What our boxes, anchors and regions and torchvision's are given: boxes and maps by name."""

import numpy as np

from tests.oracles.cases import draw

SIZE = (64, 128)
"""Rows and columns of the images."""

MAPS = {s: (-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in (4, 8, 16, 32, 64, 128)}
SSD_MAPS = dict(
    zip((8, 16, 32, 64, 100, 300), [(n, n) for n in (38, 19, 10, 5, 3, 1)], strict=True)
)
RULES = {
    "rpn": {"high": 0.7, "low": 0.3, "best": True},
    "retinanet": {"high": 0.5, "low": 0.4, "best": True},
    "regions": {"high": 0.5, "low": 0.5, "best": False},
    "ssd": {"high": 0.5, "low": 0.5, "best": False, "exclusive": True},
}
WEIGHTS = {"proposals": (1.0, 1.0, 1.0, 1.0), "regions": (10.0, 10.0, 5.0, 5.0)}
ALIGN = {"7 of 2": (7, 2, False), "7 of 2, aligned": (7, 2, True), "3 of 1": (3, 1, False)}
LEVELS, CLASSES = (90, 30, 8), 4
"""Boxes of three levels, as heads give them; classes without background."""

CUT = {"overlap": 0.4, "candidates": 25, "number": 20}
"""Of the answers; a probability is considered above `THRESHOLD`."""
THRESHOLD = 0.3
STRIDE = 8
"""Of the map that regions are read from."""


def boxes(name: str, n: int) -> np.ndarray:
    """float32 (n, 4), (y0, x0, y1, x1): sides of 3 to 60 pixels, inside the image."""
    share = 1 / (1 + np.exp(-draw(f"boxes {name}", n, 4)))
    sides = 3 * 20 ** share[:, :2]
    corner = share[:, 2:] * (np.array(SIZE) - sides)
    return np.concatenate([corner, corner + sides], -1).astype(np.float32)


def candidates(anchors: np.ndarray) -> np.ndarray:
    """float32 (n, 4): the anchors, and boxes near the truth."""
    near = np.repeat(boxes("truth", 15), 8, 0)
    near += 3 * draw("near", *near.shape).astype(np.float32)
    return np.concatenate([anchors, near])


def answers(name: str, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one image what heads give, float32: anchors (n, 4), logits (n, k), deltas (n, 4 k).

    The anchors stand in heaps of about three, so that there is something to suppress.
    """
    n = sum(LEVELS)
    anchors = np.repeat(boxes(f"anchors {name}", -(-n // 3)), 3, 0)[:n]
    logits = draw(f"logits {name}", n, classes)
    deltas = 0.2 * draw(f"deltas {name}", n, 4 * classes)
    return anchors, logits.astype(np.float32), deltas.astype(np.float32)


def features() -> np.ndarray:
    """float32 (1, h, w, 5), of stride `STRIDE`.

    A cell larger than the image: torchvision's kernels have 0 outside the map, as we do, its
    Python form has the edge.
    """
    return draw("features", 1, *(n + 1 for n in MAPS[STRIDE]), 5).astype(np.float32)
