"""VGG's published names; torchvision, timm and smp agree on the trunk."""

from collections.abc import Iterator

from encdec.encoders.vgg import VGG
from encdec.errors import InputError

HEADS = ("classifier", "pre_logits", "head")


def names(encoder: VGG, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs)."""
    if source not in ("torchvision", "timm", "smp"):
        raise InputError(f"VGG has names in torchvision, timm and smp; got {source}")
    index = 0
    for stage, convs in enumerate(encoder.convs, 1):
        for i in range(1, convs + 1):
            yield f"conv{stage}_{i}/conv", f"features.{index}"
            yield f"conv{stage}_{i}/norm/batch", f"features.{index + 1}"
            index += 3 if encoder.norm == "batch" else 2
        index += 1  # pooling
    if source == "torchvision":
        yield "fc6", "classifier.0"
        yield "fc7", "classifier.3"
