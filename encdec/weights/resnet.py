"""ResNet's published names, ResNeXt's and Wide ResNet's among them: the same in all libraries."""

from collections.abc import Iterator

from encdec.encoders.resnet import ResNet
from encdec.errors import InputError

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("fc",)


def names(encoder: ResNet, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("stage1_block1/norm1/batch", "layer1.0.bn1").

    Raises:
      InputError: an unknown source, or a norm that published weights do not have.
    """
    if source not in SOURCES:
        raise InputError(f"ResNet has names of {', '.join(SOURCES)}; got {source!r}")
    if encoder.norm not in ("batch", "frozen"):
        raise InputError(f'published ResNets have norm="batch"; got {encoder.norm!r}')
    yield "conv1", "conv1"
    yield "norm1/batch", "bn1"
    for stage, blocks in enumerate(encoder.blocks, 1):
        for i in range(blocks):
            ours, theirs = f"stage{stage}_block{i + 1}", f"layer{stage}.{i}"
            for j in range(1, 4 if encoder.kind == "bottleneck" else 3):
                yield f"{ours}/conv{j}", f"{theirs}.conv{j}"
                yield f"{ours}/norm{j}/batch", f"{theirs}.bn{j}"
            # A basic stage that neither widens nor strides has no projection.
            if i == 0 and (stage > 1 or encoder.kind == "bottleneck"):
                yield f"{ours}/conv_skip", f"{theirs}.downsample.0"
                yield f"{ours}/norm_skip/batch", f"{theirs}.downsample.1"
