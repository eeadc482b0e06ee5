"""Writes published.npz, the libraries' tensors by name and shape: `python -m tests.weights.make`.

Needs torch, torchvision, timm and segmentation_models_pytorch (`pip install -e '.[bench]'`).
"""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.networks import declare_operators
from tests.weights.cases import FILE

if not torch.cuda.is_available():
    declare_operators()
os.environ["HF_HUB_OFFLINE"] = "1"

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402
import torchvision  # noqa: E402
from segmentation_models_pytorch.encoders import get_encoder  # noqa: E402
from torchvision.models import detection, segmentation  # noqa: E402


def net(case: str) -> nn.Module:
    """ "SOURCE NAME": an encoder, or a whole network of that library."""
    source, name = case.split(" ", 1)
    whole: dict[str, Callable[[], nn.Module]] = {
        "torchvision fcn_resnet50": lambda: segmentation.fcn_resnet50(
            weights=None, weights_backbone=None, aux_loss=True
        ),
        "torchvision fcn_resnet101": lambda: segmentation.fcn_resnet101(
            weights=None, weights_backbone=None, aux_loss=True
        ),
        "torchvision FeaturePyramidNetwork": lambda: torchvision.ops.FeaturePyramidNetwork(
            [64, 128, 256, 512], 256
        ),
        "smp Unet": lambda: smp.Unet("resnet34", encoder_weights=None, classes=21),
        "smp Unet scse": lambda: smp.Unet(
            "resnet34", encoder_weights=None, classes=21, decoder_attention_type="scse"
        ),
        "smp FPN": lambda: smp.FPN("resnet34", encoder_weights=None, classes=21),
    }
    if hasattr(detection, name):
        return getattr(detection, name)(weights=None, weights_backbone=None)
    if case in whole:
        return whole[case]()
    return {
        "torchvision": lambda: torchvision.models.get_model(name, weights=None),
        "timm": lambda: timm.create_model(name),
        "smp": lambda: get_encoder(name, weights=None),
    }[source]()


def tensors(case: str) -> np.ndarray:
    """Its tensors, counters left out, as "name 64x3x7x7"."""
    named = net(case).state_dict()
    rows = [
        f"{name} {'x'.join(str(n) for n in x.shape)}"
        for name, x in named.items()
        if not name.endswith("num_batches_tracked")
    ]
    return np.array(sorted(rows), "S")


def main() -> None:
    from tests.weights.cases import CASES

    np.savez_compressed(FILE, **{case: tensors(case) for case in CASES})
    print(f"{len(CASES)} networks, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
