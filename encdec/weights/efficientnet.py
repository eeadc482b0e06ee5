"""EfficientNet's published names."""

from collections.abc import Iterator
from typing import Any

from encdec.encoders.efficientnet import EfficientNet
from encdec.errors import InputError
from encdec.weights import inverted

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("classifier", "conv_head", "bn2", "features.8", "_conv_head", "_bn1", "_fc")

SIZES = {(1.0, 1.0): 224, (1.0, 1.1): 240, (1.1, 1.2): 260, (1.2, 1.4): 300, (1.4, 1.8): 380}
"""Width and depth -> side of the images, in pixels, of B0 … B4."""


def names(encoder: EfficientNet, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("stage2_block1/expand/conv", "blocks.1.0.conv_pw").

    "smp" is its `efficientnet-b…`, whose names are efficientnet_pytorch's and those of
    `efficientnet-lite0-57934424.pth`; its `timm-…efficientnet…` have timm's.

    Raises:
      InputError: an unknown source, or a norm that published weights do not have.
    """
    if source not in SOURCES:
        raise InputError(f"EfficientNet has names of {', '.join(SOURCES)}; got {source!r}")
    if encoder.norm != "batch":
        raise InputError(f'published EfficientNets have norm="batch"; got {encoder.norm!r}')
    return {"torchvision": _torchvision, "timm": _timm, "smp": _smp}[source](encoder)


def _torchvision(encoder: EfficientNet) -> inverted.Pairs:
    yield from inverted.layer("stem", "features.0.0", "features.0.1")
    for row in encoder.rows():
        stage, block = inverted.place(row)
        yield from inverted.torchvision(row, f"features.{stage}.{block - 1}.block")


def _timm(encoder: EfficientNet) -> inverted.Pairs:
    return inverted.timm(encoder.rows())


def _smp(encoder: EfficientNet) -> inverted.Pairs:
    yield from inverted.layer("stem", "_conv_stem", "_bn0")
    for i, row in enumerate(encoder.rows()):
        block = f"_blocks.{i}"
        for norm, part in enumerate(("expand", "depthwise", "project")):
            if part != "expand" or row.expanded != row.inputs:
                conv = f"{block}._{part}_conv"
                yield from inverted.layer(f"{row.name}/{part}", conv, f"{block}._bn{norm}")
        yield from inverted.squeeze(row, f"{block}._se_reduce", f"{block}._se_expand")


def pixels(encoder: EfficientNet, source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation with which the source's weights were trained: of ImageNet, of lite 0.5."""
    fresh = type(encoder)()
    return (fresh.mean, fresh.std) if encoder.squeeze else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def fields(encoder: EfficientNet, source: str) -> dict[str, Any]:
    """What else the source's networks have: `encoder.clone(**fields(encoder, source))`.

    Names of maps among it: smp takes B0's of stride 16 from within the fifth stage. timm's
    `tf_efficientnet_b…` differ from its others: epsilon 1e-3 and padding "same".

    Raises:
      InputError: smp has no network of this width and depth.
    """
    scale = (encoder.width, encoder.depth)
    if source == "smp" and scale not in SIZES:
        raise InputError(f"smp has width and depth of {', '.join(map(str, SIZES))}; got {scale}")
    taps = () if source == "timm" else ("stem",)
    if not encoder.squeeze:
        momentum = 0.9 if source == "timm" else 0.99
        return {"epsilon": 1e-3, "momentum": momentum, "padding": "same", "taps": taps}
    if source != "smp":
        return {"epsilon": 1e-5, "momentum": 0.9, "padding": "symmetric", "taps": taps}
    taps += ("stage5_block1",) if scale == (1.0, 1.0) else ()
    return {"epsilon": 1e-3, "momentum": 0.99, "padding": SIZES[scale], "taps": taps}
