"""DenseNet's published names: the same in all libraries.

Files of torchvision's own from 2017 say `norm.1` and `conv.1` where all now say `norm1`, `conv1`.
"""

import re
from collections.abc import Iterator

from encdec.encoders.densenet import DenseNet
from encdec.errors import InputError

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("classifier",)


def names(encoder: DenseNet, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("transition1_conv", "features.transition1.conv").

    Raises:
      InputError: an unknown source, or a norm that published weights do not have.
    """
    if source not in SOURCES:
        raise InputError(f"DenseNet has names of {', '.join(SOURCES)}; got {source!r}")
    if encoder.norm != "batch":
        raise InputError(f'published DenseNets have norm="batch"; got {encoder.norm!r}')
    yield "conv1", "features.conv0"
    yield "norm1/batch", "features.norm0"
    for block, layers in enumerate(encoder.layers, 1):
        for i in range(1, layers + 1):
            ours, theirs = f"block{block}_layer{i}", f"features.denseblock{block}.denselayer{i}"
            for j in (1, 2):
                yield f"{ours}/norm{j}/batch", f"{theirs}.norm{j}"
                yield f"{ours}/conv{j}", f"{theirs}.conv{j}"
        if block < len(encoder.layers):
            for kind, module in (("norm", "norm/batch"), ("conv", "conv")):
                yield f"transition{block}_{module}", f"features.transition{block}.{kind}"
    yield "norm_last/batch", f"features.norm{len(encoder.layers) + 1}"


def renamed(name: str) -> str:
    """A name of 2017 as all say it now."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", name)
