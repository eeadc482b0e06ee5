"""Published names of SSD's trunk: torchvision's `SSDFeatureExtractorVGG`."""

from collections.abc import Iterator

from encdec.encoders.ssd import SSDTrunk
from encdec.errors import InputError

SOURCES = ("torchvision",)
HEADS = ()


def names(encoder: SSDTrunk, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("conv1_2/conv", "features.2").

    Raises:
      InputError: an unknown source.
    """
    if source not in SOURCES:
        raise InputError(f"SSDTrunk has names of {', '.join(SOURCES)}; got {source!r}")
    place = 0
    for stage, convs in enumerate(encoder.convs[:4], 1):
        for i in range(1, convs + 1):
            yield f"conv{stage}_{i}/conv", f"features.{place}"
            place += 2
        place += 1
    # What comes after conv4_3: pool4, the last stage, and within it pool5, fc6 and fc7.
    for i in range(1, encoder.convs[4] + 1):
        yield f"conv5_{i}/conv", f"extra.0.{2 * i - 1}"
    last = 2 * encoder.convs[4] + 1
    yield "fc6", f"extra.0.{last}.1"
    yield "fc7", f"extra.0.{last}.3"
    for i in range(1, len(encoder.extras) + 1):
        yield f"conv{i + 7}_1", f"extra.{i}.0"
        yield f"conv{i + 7}_2", f"extra.{i}.2"
