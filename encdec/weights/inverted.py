"""What the libraries call the layers of inverted residual blocks."""

from collections.abc import Iterable, Iterator

from encdec.encoders.inverted import Row

Pairs = Iterator[tuple[str, str]]
"""(our module's path, theirs)."""


def layer(ours: str, conv: str, norm: str) -> Pairs:
    """A `ConvNorm`."""
    yield f"{ours}/conv", conv
    yield f"{ours}/norm/batch", norm


def place(row: Row) -> tuple[int, int]:
    """Stage and block within it, from 1."""
    stage, block = row.name.removeprefix("stage").split("_block")
    return int(stage), int(block)


def squeeze(row: Row, reduce: str, expand: str) -> Pairs:
    """Squeeze-and-excitation, where the block has it."""
    if row.squeezed:
        yield f"{row.name}/squeeze/reduce", reduce
        yield f"{row.name}/squeeze/expand", expand


def torchvision(row: Row, block: str) -> Pairs:
    """A block of torchvision's MobileNet V3 and EfficientNet: its layers are numbered."""
    parts = ["expand"] * (row.expanded != row.inputs) + ["depthwise"]
    parts += ["squeeze"] * (row.squeezed > 0) + ["project"]
    for i, part in enumerate(parts):
        if part == "squeeze":
            yield from squeeze(row, f"{block}.{i}.fc1", f"{block}.{i}.fc2")
        else:
            yield from layer(f"{row.name}/{part}", f"{block}.{i}.0", f"{block}.{i}.1")


def timm(rows: Iterable[Row], model: str = "") -> Pairs:
    """The stem and the blocks of all of timm's; `model` stands before every name."""
    yield from layer("stem", f"{model}conv_stem", f"{model}bn1")
    for row in rows:
        stage, number = place(row)
        block = f"{model}blocks.{stage - 1}.{number - 1}"
        layers = {"depthwise": "conv_dw", "project": "conv_pw"}
        if row.expanded != row.inputs:
            layers = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        for i, (ours, theirs) in enumerate(layers.items(), 1):
            yield from layer(f"{row.name}/{ours}", f"{block}.{theirs}", f"{block}.bn{i}")
        yield from squeeze(row, f"{block}.se.conv_reduce", f"{block}.se.conv_expand")
