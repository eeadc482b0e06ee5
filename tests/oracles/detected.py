"""What torchvision's whole detectors and ours are given: images, weights, truth, logits.

Neither encdec nor torch is imported here.
"""

import numpy as np

from tests.oracles import cases, detection
from tests.oracles.box_cases import boxes
from tests.oracles.cases import Case
from tests.oracles.detection import CLASSES

CASES = {
    "retinanet": Case((2, 64, 128, 3)),
    "ssd300": Case((1, 300, 300, 3)),
    "fasterrcnn": Case((2, 64, 128, 3)),
    "maskrcnn": Case((2, 64, 128, 3)),
}
"""Scaled down; the images are as large as they are seen. Every stride divides them, or has a single
cell: elsewhere torchvision's anchors lie as far apart as a cell has pixels of the image."""

WHOLE = {
    "retinanet_resnet50_fpn": Case((1, 128, 128, 3)),
    "fasterrcnn_resnet50_fpn": Case((1, 128, 128, 3)),
}
"""In full size: not stored."""

CANDIDATES, NUMBER, PROPOSALS, CANONICAL = 40, 25, 20, 56.0
"""Of the narrow nets: looked at, of an image, of the RPN; side of a region read at stride 16.

Regions times classes are not more than are looked at: there torchvision has no limit."""

REGIONS_OF = {"cls_logits": 0.1, "bbox": 0.02, "cls_score": 0.1, "mask_fcn_logits": 0.1}
GAINS = {
    "retinanet": {"cls_logits": 0.05, "bbox": 0.05},
    "ssd300": {"classification_head": 0.003, "regression_head": 0.002},
    "fasterrcnn": REGIONS_OF,
    "maskrcnn": REGIONS_OF,
    "retinanet_resnet50_fpn": {"layer_blocks": 1.4e-4, "cls_logits": 0.5, "bbox": 0.1},
    "fasterrcnn_resnet50_fpn": {"layer_blocks": 1.4e-4, "cls_score": 2.0, "bbox": 0.1},
}
"""Of what predicts, by parts of its name, and of a deep net's pyramid, whose maps are in thousands:
probabilities are then neither all 0 nor all 1, and boxes stay near their anchors."""

REGIONS, TRUTH = 60, 6
"""Of an image whose losses are compared; there is one."""


def tensor(name: str, shape: tuple[int, ...], net: str) -> np.ndarray:
    """A tensor of a net of that name by its published one, in the library's layout."""
    values = detection.tensor(name, shape)
    for part, gain in GAINS[net].items():
        if part in name:
            values = values * gain
    return values


def truth() -> dict[str, np.ndarray]:
    """Objects of one image of `box_cases.SIZE`: boxes (n, 4), classes (n,) from 0 on.

    No two anchors of SSD are equally near to one, where rounding would choose.
    """
    classes = np.arange(TRUTH, dtype=np.int32) % (CLASSES - 1)
    return {"boxes": boxes("truth of losses 20", TRUTH), "classes": classes}


def given(name: str, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 logits (rows, classes) and deltas (rows, 4)."""
    logits, deltas = cases.draw(f"{name} logits", rows, classes), cases.draw(name, rows, 4)
    return logits.astype(np.float32), (0.3 * deltas).astype(np.float32)


def regions() -> np.ndarray:
    """float32 (n, 4): some near the truth, the others anywhere."""
    near = np.repeat(truth()["boxes"], 5, 0)
    near = near + 2 * cases.draw("near truth", *near.shape).astype(np.float32)
    return np.concatenate([near, boxes("regions of losses", REGIONS - len(near))])
