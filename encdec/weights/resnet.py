"""ResNet's published names; torchvision, timm and smp agree."""

from collections.abc import Iterator

from encdec.encoders.resnet import ResNet
from encdec.errors import InputError

HEADS = ("fc",)


def names(encoder: ResNet, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs)."""
    if source not in ("torchvision", "timm", "smp"):
        raise InputError(f"ResNet has names in torchvision, timm and smp; got {source}")
    yield "conv1", "conv1"
    yield "norm1/batch", "bn1"
    convs = {"basic": 2, "bottleneck": 3}[encoder.kind]
    for stage, blocks in enumerate(encoder.blocks, 1):
        for block in range(blocks):
            ours, theirs = f"stage{stage}_block{block + 1}", f"layer{stage}.{block}"
            for i in range(1, convs + 1):
                yield f"{ours}/conv{i}", f"{theirs}.conv{i}"
                yield f"{ours}/norm{i}/batch", f"{theirs}.bn{i}"
            yield f"{ours}/conv_skip", f"{theirs}.downsample.0"
            yield f"{ours}/norm_skip/batch", f"{theirs}.downsample.1"
