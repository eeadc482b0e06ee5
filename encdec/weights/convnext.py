"""ConvNeXt's published names; segmentation_models.pytorch has timm's trunk as `tu-convnext_…`."""

from collections.abc import Iterator

from encdec.encoders.convnext import ConvNeXt
from encdec.errors import InputError

SOURCES = ("torchvision", "timm", "smp")
HEADS = ("classifier", "head")
TIMM = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma")
TORCHVISION = ("block.0", "block.2", "block.3", "block.5", "layer_scale")


def names(encoder: ConvNeXt, source: str) -> Iterator[tuple[str, str]]:
    """(our module's path, theirs), e.g. ("stage1_block1/expand", "features.1.0.block.3").

    Pairs whose first ends in "gamma" are parameters.

    Raises:
      InputError: an unknown source.
    """
    if source not in SOURCES:
        raise InputError(f"ConvNeXt has names of {', '.join(SOURCES)}; got {source!r}")
    modules = TORCHVISION if source == "torchvision" else TIMM
    for stage, blocks in enumerate(encoder.blocks, 1):
        before, within = places(stage, source)
        for i, layer in enumerate(("norm", "conv") if stage > 1 else ("conv", "norm")):
            yield f"{layer}{stage}", f"{before}{i}"
        for i in range(blocks):
            for ours, theirs in zip(
                ("conv", "norm", "expand", "project", "gamma"), modules, strict=True
            ):
                yield f"stage{stage}_block{i + 1}/{ours}", f"{within}{i}.{theirs}"


def places(stage: int, source: str) -> tuple[str, str]:
    """What the names of the two layers before a stage begin with, and those of its blocks."""
    if source == "torchvision":
        return f"features.{2 * stage - 2}.", f"features.{2 * stage - 1}."
    model, dot = ("model.", "_") if source == "smp" else ("", ".")
    within = f"{model}stages{dot}{stage - 1}."
    return f"{within}downsample." if stage > 1 else f"{model}stem{dot}", f"{within}blocks."
