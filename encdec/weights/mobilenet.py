"""MobileNet V2's and V3's published names."""

from collections.abc import Iterator
from typing import Any

from encdec.encoders.mobilenet import MobileNetV2, MobileNetV3
from encdec.errors import InputError
from encdec.weights import inverted

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("classifier", "conv_head", "bn2", "features.18")
"""The last 1x1 convolution of V2 among them, for a `MobileNetV2` without it."""


def names(encoder: MobileNetV2 | MobileNetV3, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("stage2_block1/expand/conv", "features.2.conv.0.0").

    smp's `mobilenet_v2` is torchvision's; its `tu-mobilenetv3_…` is timm's below "model.".

    Raises:
      InputError: an unknown source, or a norm that published weights do not have.
    """
    if source not in SOURCES:
        raise InputError(f"MobileNet has names of {', '.join(SOURCES)}; got {source!r}")
    if encoder.norm != "batch":
        raise InputError(f'published MobileNets have norm="batch"; got {encoder.norm!r}')
    return (_second if isinstance(encoder, MobileNetV2) else _third)(encoder, source)


def _second(encoder: MobileNetV2, source: str) -> inverted.Pairs:
    rows = encoder.rows()
    if source == "timm":
        yield from inverted.timm(rows)
        last = "conv_head", "bn2"
    else:
        yield from inverted.layer("stem", "features.0.0", "features.0.1")
        for i, row in enumerate(rows, 1):
            block, place = f"features.{i}.conv", 0
            for part in ("expand", "depthwise")[row.expanded == row.inputs :]:
                ours, theirs = f"{row.name}/{part}", f"{block}.{place}"
                yield from inverted.layer(ours, f"{theirs}.0", f"{theirs}.1")
                place += 1
            project = f"{block}.{place}", f"{block}.{place + 1}"
            yield from inverted.layer(f"{row.name}/project", *project)
        last = f"features.{len(rows) + 1}.0", f"features.{len(rows) + 1}.1"
    if encoder.last:
        yield from inverted.layer("last", *last)


def _third(encoder: MobileNetV3, source: str) -> inverted.Pairs:
    rows = encoder.rows()
    if source == "torchvision":
        yield from inverted.layer("stem", "features.0.0", "features.0.1")
        for i, row in enumerate(rows, 1):
            yield from inverted.torchvision(row, f"features.{i}.block")
        last = f"features.{len(rows) + 1}"
        yield from inverted.layer("last", f"{last}.0", f"{last}.1")
        return
    model = "model." if source == "smp" else ""
    yield from inverted.timm(rows, model)
    stages, _ = inverted.place(rows[-1])
    last = f"{model}blocks.{stages}.0"
    yield from inverted.layer("last", f"{last}.conv", f"{last}.bn1")


def fields(encoder: MobileNetV2 | MobileNetV3, source: str) -> dict[str, Any]:
    """What else the source's networks have: `encoder.clone(**fields(encoder, source))`.

    timm's `tf_mobilenetv3_…` differ from its others: epsilon 1e-3, padding "same", and 0.5 for
    mean and std.
    """
    if isinstance(encoder, MobileNetV2):
        return {}
    if source == "torchvision":
        return {"epsilon": 1e-3, "momentum": 0.99, "padding": "symmetric"}
    return {"epsilon": 1e-5, "momentum": 0.9, "padding": "symmetric"}
