"""What a network does at each level, read off one run on shapes alone: nothing is compiled.

No family is known here: what is merged, cropped or predicted follows from which of the walk's
places ran, and from the sizes and layers in them.
"""

import re
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn

from encdec.decoders.fpn import FPN
from encdec.decoders.topdown import Copy, TopDown
from encdec.errors import InputError
from encdec.figures.calls import Call, layer, layers, spaced, traced
from encdec.geometry import next_good_size
from encdec.heads.rcnn import RCNN
from encdec.layers import ConvTranspose
from encdec.model import EncoderDecoder
from encdec.train.state import count

Size = tuple[int, int, int]
"""Rows, columns, channels."""

LARGEST = 1 << 13
"""Pixels of a side."""


@dataclass(frozen=True)
class Step:
    """Attributes:
    does: its layers in words, "conv 1×1"; "" if it has none and copies.
    size: of what it gives.
    """

    does: str
    size: Size


@dataclass(frozen=True)
class Level:
    """One stride; None for what does not happen there.

    Attributes:
      map: the encoder's; `does` are the layers from the map before it.
      lateral: what becomes of the skip, before it is cropped.
      upsample: how the coarser level comes up.
      merged: of these two, cropped to one size; `does` is "add" or "concatenate", "" if there was
        nothing to merge.
      refine, output: inside the path, and outside it.
      source: of a level above the walk's coarsest: "encoder", made of its coarsest map; "pyramid",
        of the level below; "" within the walk.
    """

    stride: int
    map: Step | None = None
    lateral: Step | None = None
    upsample: Step | None = None
    merged: Step | None = None
    refine: Step | None = None
    output: Step | None = None
    source: str = ""


@dataclass(frozen=True)
class Prediction:
    """What the head makes of the decoder's maps.

    Attributes:
      reads: strides of the maps that it predicts from.
      layers: in words, of each of these levels.
      shared: they are the same layers, with the same weights, on every level.
      says: what each level predicts in words; "" where all of them predict together.
      joined: sum of all levels, if the logits are made of it.
      last: layers that make the logits.
      logits: their size; None for a head of boxes.
      pooled: strides that a prediction is pooled from, and `about`, the lines on it.
    """

    reads: tuple[int, ...]
    layers: dict[int, str]
    shared: bool
    says: dict[int, str]
    joined: Size | None
    last: str
    logits: Size | None
    pooled: tuple[int, ...]
    about: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """Attributes:
    image: as large as the network takes it.
    levels: fine to coarse.
    parts: class and number of parameters of encoder, decoder and head.
    """

    image: Size
    levels: tuple[Level, ...]
    prediction: Prediction
    parts: dict[str, tuple[str, int]]


def architecture(model: EncoderDecoder, size: tuple[int, int], channels: int = 3) -> Architecture:
    """What the model does with images of the next good size from `size`, (height, width), on.

    Raises:
      InputError: the decoder is no walk (`TopDown`), or the model takes no such images.
    """
    if not (1 <= min(size) and max(size) <= LARGEST and 1 <= channels <= LARGEST):
        raise InputError(
            f"wanted a size of 1 to {LARGEST:,} pixels and as many channels; got {size[0]}x"
            f"{size[1]} and {channels}: say --size HEIGHT WIDTH"
        )
    if not isinstance(model.decoder, TopDown):
        raise InputError(
            f"wanted a decoder that is a walk (encdec.decoders.topdown); got "
            f"{type(model.decoder).__name__}: set the places of a TopDown instead"
        )
    image = (*next_good_size(model, size), channels)
    calls, variables, outputs = traced(model, image)
    parts = {}
    for part in ("encoder", "decoder", "head"):
        own = count(variables.get("params", {}).get(part, {}))
        parts[part] = (type(getattr(model, part)).__name__, own)
    levels = walked(model, calls)
    return Architecture(image, levels, predicted(model, calls, outputs), parts)


def walked(model: EncoderDecoder, calls: list[Call]) -> tuple[Level, ...]:
    """The levels of encoder and decoder, fine to coarse."""
    decoder, found = model.decoder, {call.path: call for call in calls}
    maps = stages(calls)
    scores = getattr(model.head, "scores", False)
    scales = getattr(decoder, "scales", ())
    factors = dict(zip(sorted(decoder.strides)[-2::-1], scales, strict=False))
    above = decoder.above() if isinstance(decoder, FPN) else ()

    def place(kind: str, stride: int) -> Step | None:
        call = found.get(("decoder", f"{kind}_s{stride}"))
        if call is None:
            return None
        words = ", ".join(layers(calls, call.path))
        copies = call.given == call.gives and isinstance(call.module, Copy)
        if not words and not copies:
            words = spaced(call.module)
            factor = call.gives[1] // call.given[1]
            words += f" ×{factor}" if factor > 1 else ""
        if kind == "lateral":
            words = words.replace("conv", "score") if scores else words
            words = f"× {factors[stride]:g}, {words}" if stride in factors else words
        return Step(words, call.gives[1:])

    levels = []
    for stride in sorted({*maps, *(s for s, _ in decoder.walk()), *above}):
        if stride in above:
            source = "encoder" if decoder.reads_encoder() else "pyramid"
            source = source if stride == above[0] else "pyramid"
            output = place("output", stride)
            levels.append(Level(stride, maps.get(stride), output=output, source=source))
            continue
        kinds = ("lateral", "upsample", "refine", "output")
        lateral, upsample, refine, output = (place(kind, stride) for kind in kinds)
        merged = None
        if refine is not None:
            both = lateral is not None and upsample is not None
            size = found[("decoder", f"refine_s{stride}")].given[1:]
            merged = Step(decoder.merge if both else "", size)
        levels.append(Level(stride, maps.get(stride), lateral, upsample, merged, refine, output))
    return tuple(levels)


def stages(calls: list[Call]) -> dict[int, Step]:
    """The encoder's maps, each with the layers since the one before it."""
    maps = {call.path: call.gives for call in calls}[("encoder",)]
    inner = [call for call in calls if call.path[0:1] == ("encoder",)]
    blocks = [call for call in inner if len(call.path) == 2 and isinstance(call.gives, tuple)]
    steps, start = {}, 0
    for stride in sorted(maps):
        end = start
        while end < len(blocks) and blocks[end].gives[1] >= maps[stride][1]:
            pooled = start < end and blocks[end].given != blocks[end - 1].gives
            if pooled and blocks[end].given == maps[stride]:  # the map is what was pooled
                break
            end += 1
        whole = [i for i in range(start, end) if blocks[i].gives == maps[stride]]
        end = whole[-1] + 1 if whole else end  # what is narrower after it leads to the next map
        own = {call.path for call in blocks[start:end]}
        words = layers([call for call in inner if call.path[:2] in own], ("encoder",))
        steps[stride], start = Step(", ".join(words), maps[stride][1:]), end
    return steps


def predicted(model: EncoderDecoder, calls: list[Call], outputs: Any) -> Prediction:
    """What the head reads and gives."""
    maps = {call.path: call.gives for call in calls}[("decoder",)]
    outputs = jax.tree.map(lambda x: x.shape, outputs)
    reads = tuple(sorted(model.head.reach(model.decoder.outputs())))
    own = [call for call in calls if call.path[:1] == ("head",) and len(call.path) > 1]
    convs = [call for call in own if isinstance(call.module, nn.Conv)]
    does = {stride: _layers_of(stride, own) for stride in reads}
    says = dict.fromkeys(reads, "") | _said(outputs, maps)
    times = [sum(call.path == conv.path for call in convs) for conv in convs]
    shared = len(reads) > 1 and max(times, default=0) == len(reads)
    logits = outputs["logits"][1:] if "logits" in outputs else None
    last, joined = "", None
    if logits:
        ends = [call for call in own if not re.search(r"_s\d+|^aux", call.path[1])]
        joined = ends[0].given[1:] if len(reads) > 1 else None
        words = layers(ends, ("head",)) if joined else [does[reads[0]], *layers(ends, ("head",))]
        if not any(isinstance(call.module, ConvTranspose) for call in ends) and min(reads) > 1:
            words.append(f"bilinear ×{min(reads)}")
        last = ", ".join(word for word in words if word)
    elif not any(does.values()):
        alike = dict.fromkeys(layer(conv.module) for conv in convs if conv.path[1] != "mask")
        does = dict.fromkeys(reads, ", ".join(alike))
    return Prediction(
        reads, does, shared, says, joined, last, logits, *_pooled(model.head, own, outputs, reads)
    )


def _said(outputs: Any, maps: Any) -> dict[int, str]:
    """What single levels predict: classes and boxes of so many anchors a cell, or in training."""
    rows = {name: made for name, made in outputs.items() if isinstance(made, dict)}
    names = sorted(set(rows) - {"anchors"}, key=lambda name: name != "class")
    said = {}
    for stride, (_, number, *_) in rows.get("class", {}).items():
        kinds = number // (maps[stride][1] * maps[stride][2])
        values = [f"{name} {'×'.join(map(str, rows[name][stride][2:]))}" for name in names]
        said[stride] = f"{kinds} × ({', '.join(values)})"
    for name, shape in outputs.items():
        if name.startswith("aux"):  # deep supervision
            said[int(name.partition("_s")[2] or min(maps))] = f"{shape[-1]} classes in training"
    return said


def _layers_of(stride: int, calls: list[Call]) -> str:
    """The layers of a head that are one level's alone, as their names tell."""
    mine = [call for call in calls if re.search(rf"_s{stride}(_|$)", call.path[1])]
    return ", ".join(layers(mine, ("head",)))


def _pooled(
    head: nn.Module, calls: list[Call], outputs: Any, reads: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What is predicted from all levels at once, of an image or of its regions."""
    if "image_class" in outputs:
        return reads, ("mean of cells and levels", f"{outputs['image_class'][-1]} classes")
    if not isinstance(head, RCNN):
        return (), ()
    lines = []
    for call in calls:
        if call.path in (("head", "box"), ("head", "mask")):
            _, number, *cells, _ = call.given
            lines.append(f"{number:,} regions of {cells[0]}×{cells[1]}:")
            gives = sorted(call.gives.items(), reverse=True)
            named = [(name.removeprefix("region_"), shape[2:]) for name, shape in gives]
            lines.append(", ".join(f"{name} {'×'.join(map(str, cells))}" for name, cells in named))
    return head.strides, tuple(lines)
