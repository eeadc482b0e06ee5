"""What torchvision's detectors and ours are given: weights follow from the library's names.

Neither encdec nor torch is imported here.
"""

import numpy as np

from tests.oracles import cases
from tests.oracles.cases import Case

CASES = {
    "retinanet": Case((2, 75, 41, 3)),
    "ssd300": Case((1, 300, 300, 3)),
    "two_stage": Case((2, 64, 96, 3)),
}
"""Scaled down, in evaluation."""

WHOLE = {
    "retinanet_resnet50_fpn": Case((1, 128, 160, 3)),
    "retinanet_resnet50_fpn_v2": Case((1, 75, 129, 3)),
    "ssd300_vgg16": Case((1, 300, 300, 3)),
    "fasterrcnn_resnet50_fpn": Case((1, 128, 160, 3)),
    "maskrcnn_resnet50_fpn": Case((1, 128, 160, 3)),
}
"""In full size: not stored."""

KINDS, CLASSES, WIDTH = 9, 3, 8
"""Of the narrow nets: RetinaNet's anchors of a cell, classes, channels of the pyramid."""


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor by its published name, in the library's layout; kernels keep the scale they read."""
    normal, leaf = cases.draw(name, *shape), name.rpartition(".")[2]
    if leaf == "scale_weight":
        return 20 + 4 * normal
    if leaf == "weight" and len(shape) > 1:
        transposed = name.endswith("conv5_mask.weight")
        return normal * np.sqrt(2 / (shape[0] if transposed else np.prod(shape[1:])))
    return {
        "weight": lambda: 1 + 0.2 * normal,
        "bias": lambda: 0.3 + 0.2 * normal,
        "running_mean": lambda: 0.2 * normal,
        "running_var": lambda: np.exp(0.3 * normal),
    }[leaf]()
