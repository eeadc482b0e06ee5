"""VGG's published names: places in a row of convolutions, norms, ReLUs and poolings."""

from collections.abc import Iterator

from encdec.encoders.vgg import VGG
from encdec.errors import InputError

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("classifier", "pre_logits", "head")


def names(encoder: VGG, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("conv1_2/conv", "features.2").

    Raises:
      InputError: an unknown source, or a norm that published weights do not have.
    """
    if source not in SOURCES:
        raise InputError(f"VGG has names of {', '.join(SOURCES)}; got {source!r}")
    if encoder.norm == "group":
        raise InputError('published VGGs have norm="none" or "batch"; got \'group\'')
    place = 0
    for stage, convs in enumerate(encoder.convs, 1):
        for i in range(1, convs + 1):
            yield f"conv{stage}_{i}/conv", f"features.{place}"
            if encoder.norm == "batch":
                yield f"conv{stage}_{i}/norm/batch", f"features.{place + 1}"
            place += 3 if encoder.norm == "batch" else 2
        place += 1
    if encoder.fc:  # their matrices, as the convolutions that they are (FCN §3.1)
        yield "fc6", "classifier.0"
        yield "fc7", "classifier.3"
