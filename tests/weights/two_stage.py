"""The parts of a two-stage detector, on regions that are cut from its finest map."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from encdec.arrays import Map, Maps
from encdec.decoders.fpn import FPN, Subsample
from encdec.encoders.resnet import ResNet
from encdec.heads.dense import Dense, rpn
from encdec.heads.regions import MaskHead, TwoFC
from encdec.model import EncoderDecoder

PLACES = ((0, 0), (1, 2), (2, 0))
"""Cells where regions begin, as many as there are regions."""


def cut(x: Map, size: int) -> Any:
    """Regions of size x size cells of the map, one for each place: (b, n, size, size, c)."""
    return jnp.stack([x[:, i : i + size, j : j + size] for i, j in PLACES], 1)


class Parts(nn.Module):
    """What each part gives, nothing sampled or pooled."""

    rpn: Dense
    box: TwoFC
    mask: MaskHead | None = None

    @nn.compact
    def __call__(self, maps: Maps, *, size: tuple[int, int], train: bool) -> dict[str, Any]:
        finest = maps[min(maps)]
        outputs = self.rpn(maps, size=size, train=train)
        outputs |= self.box(cut(finest, 7), train=train)
        if self.mask is not None:
            outputs |= self.mask(cut(finest, 14), train=train)
        return outputs


def detector(classes: int, mask: bool, encoder: ResNet) -> EncoderDecoder:
    """torchvision's fasterrcnn_resnet50_fpn, or maskrcnn_resnet50_fpn."""
    head = Parts(rpn(), TwoFC(classes), MaskHead(classes) if mask else None)
    return EncoderDecoder(encoder, FPN(coarser=Subsample()), head)
