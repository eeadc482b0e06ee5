"""What encoders of ours and of the published libraries are given: weights follow from the names
that the libraries give them, so that a wrong name is a wrong weight.

Neither encdec nor torch is imported here.
"""

from collections.abc import Iterable

import numpy as np

from tests.oracles import cases
from tests.oracles.cases import Case

EVEN, ODD, PAIR = (1, 64, 96, 3), (1, 37, 51, 3), (2, 40, 56, 3)
FOUR = (4, 64, 96, 3)
CASES = {
    "resnet_basic": Case(EVEN),
    "resnet_bottleneck": Case(EVEN),
    "resnet_resnext_odd": Case(ODD),
    "resnet_resnext_train": Case(PAIR, train=True),
    "resnet_resnext_dilated": Case(EVEN),
    "resnet_wide": Case(EVEN),
    "vgg_plain": Case(EVEN),
    "vgg_plain_odd": Case(ODD),
    "vgg_batch": Case(EVEN),
    "vgg_batch_train": Case(PAIR, train=True),
    "densenet_plain": Case(EVEN),
    "densenet_plain_odd": Case(ODD),
    "densenet_plain_train": Case(PAIR, train=True),
    "convnext_plain": Case(EVEN),
    "convnext_plain_odd": Case(ODD),
    "convnext_plain_train": Case(PAIR, train=True),
    "convnext_dilated_16": Case(EVEN),
    "convnext_dilated_8": Case(EVEN),
    "mobilenet_v2": Case(EVEN),
    "mobilenet_v2_odd": Case(ODD),
    "mobilenet_v2_train": Case(PAIR, 4, train=True),
    "mobilenet_v3": Case(EVEN),
    "mobilenet_v3_odd": Case(ODD),
    "mobilenet_v3_train": Case(FOUR, train=True),
    "mobilenet_v3_dilated": Case(EVEN),
    "mobilenet_v3_same": Case(EVEN),
    "mobilenet_v3_same_odd": Case(ODD),
    "efficientnet_plain": Case(EVEN),
    "efficientnet_plain_odd": Case(ODD),
    "efficientnet_plain_train": Case(FOUR, train=True),
    "efficientnet_lite": Case(EVEN),
    "efficientnet_lite_odd": Case(ODD),
    "efficientnet_lite_dilated": Case(EVEN),
    "efficientnet_smp": Case(EVEN),
}
"""Training is by the batch, nothing dropped, with all gradients; evaluation is maps alone."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2), (6, 96, 2, 2), (6, 160, 1, 2))
V3 = (
    (3, 8, 8, True, "RE", 2),
    (3, 24, 16, False, "RE", 2),
    (3, 40, 16, False, "RE", 1),
    (5, 48, 24, True, "HS", 2),
    (5, 64, 24, True, "HS", 1),
    (5, 72, 32, True, "HS", 2),
    (3, 96, 32, False, "HS", 1),
)
B0 = ((1, 3, 16, 1, 1), (6, 3, 24, 1, 2), (6, 5, 40, 2, 2), (6, 3, 112, 1, 2), (6, 5, 192, 2, 2))
"""Tables of MobileNet V2, V3 and EfficientNet, scaled down, as our encoders have them."""

LEAVES = {"bias": "bias", "running_mean": "mean", "running_var": "var"}


def split(name: str, dimensions: int) -> tuple[str, str]:
    """Their module and our leaf of a tensor of theirs; a parameter that stands alone keeps its."""
    module, _, leaf = name.rpartition(".")
    if leaf == "weight":
        return module, "kernel" if dimensions > 1 else "scale"
    return module, LEAVES.get(leaf, leaf)


def ours(array: np.ndarray) -> np.ndarray:
    """A tensor of theirs in our layout."""
    if array.ndim == 3:  # torchvision's layer scale, (c, 1, 1)
        return array.ravel()
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])


def theirs(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array in our layout as a tensor of theirs."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return np.ascontiguousarray(array.transpose(axes)).reshape(shape)


def weight(module: str, leaf: str, shape: tuple[int, ...]) -> np.ndarray:
    """In our layout, by their module's name and our leaf's."""
    alone = leaf in ("gamma", "layer_scale")
    return cases.weight(f"{module}/{'scale' if alone else leaf}", shape)


def path(paths: dict[str, str], ours: str) -> tuple[str, str]:
    """Their module and our leaf of a parameter or statistic of ours.

    Args:
      paths: what `names` gives: our modules, and parameters that stand alone -> theirs.
    """
    if ours in paths:
        module, _, leaf = paths[ours].rpartition(".")
        return module, leaf
    module, _, leaf = ours.rpartition("/")
    return paths[module], leaf


def once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs; no name may come twice on either side."""
    pairs = list(pairs)
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    return dict(pairs)
