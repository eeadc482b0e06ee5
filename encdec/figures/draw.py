"""The figure of a network: encoder down on the left, decoder up on the right, heads beside it.

It follows from what the network does (`encdec.figures.architecture`); no family has its own.
"""

from typing import Literal

from encdec.figures.architecture import Level, architecture
from encdec.figures.drawing import (
    Box,
    Disc,
    Drawing,
    Length,
    Line,
    Point,
    Role,
    Shape,
    Text,
    width_of,
)
from encdec.figures.layout import IMAGE, MARGIN, Block, Layout, wrapped
from encdec.model import EncoderDecoder

PILL, CHIP = 16.0, 10.0
"""Widths of a head that levels share, and of a level's prediction."""


def draw(
    model: EncoderDecoder,
    size: tuple[int, int],
    channels: int = 3,
    title: str = "",
    plain: bool = False,
) -> Drawing:
    """The figure of a network for images of that size, (height, width), or the next good one.

    A block's height grows with its rows to the power of 0.6, its width with the root of its
    channels; the numbers beside it are exact. Nothing is compiled. A notebook shows what is
    returned.

    Args:
      channels: of the images.
      title: the classes of the three parts if there is none.
      plain: neither layers nor sizes, only the shape of the network and its channels.

    Raises:
      InputError: the model takes no such images, or its decoder is no walk.
    """
    found = architecture(model, size, channels)
    kinds = " + ".join(kind for kind, _ in found.parts.values())
    return Picture(Layout(found, plain)).drawing(title or kinds)


class Picture:
    """Shapes, in the order in which they cover each other: arrows, then blocks."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.found, self.blocks = layout, layout.found, layout.blocks
        self.shapes: list[Shape] = []
        self.end = layout.end

    def drawing(self, title: str) -> Drawing:
        """All of it."""
        self.encoder()
        for level in self.found.levels:
            self.level(level)
        self.logits()
        self.predictions()
        self.pooled()
        for (column, _), block in self.blocks.items():
            self.block(column, block)
        for level in self.found.levels:
            at = (MARGIN, self.layout.y[level.stride])
            self.lines(at, (f"stride {level.stride}",), "start", "soft")
        below = self.layout.below
        height = below + (28 if self.layout.plain else 62)
        width = max(self.end + MARGIN, self.heading(title), self.key(below + 38))
        return Drawing(tuple(self.shapes), width, height, title)

    def lines(
        self,
        at: Point,
        lines: tuple[str, ...],
        anchor: Literal["start", "middle", "end"],
        role: Role = "ink",
    ) -> None:
        """Lines of text around a point; left out of a plain figure."""
        top = at[1] - 7 * len(lines) + 11
        for i, line in enumerate(lines):
            if text := self.layout.words(line):
                self.shapes.append(Text(at[0], top + 14 * i, text, 12, role, anchor))

    def label(self, at: Point, block: Block, anchor: Literal["start", "end"]) -> None:
        """A block's channels and size, around a point."""
        lines = self.layout.label(block)
        top = at[1] - 7 * len(lines) + 11
        self.shapes.append(Text(at[0], top, lines[0], 12, "ink", anchor, bold=True))
        self.lines((at[0], top + 10), lines[1:], anchor, "soft")

    def arrow(self, start: Point, end: Point, words: str = "", dashed: bool = False) -> None:
        """A level arrow with its words above it."""
        self.shapes.append(Line((start, end), dashed=dashed))
        self.lines(((start[0] + end[0]) / 2 - 3, end[1] - 9), (words,), "middle")

    def encoder(self) -> None:
        """The way down."""
        before = self.blocks["encoder", IMAGE]
        for level in self.found.levels:
            if level.map:
                block = self.blocks["encoder", level.stride]
                self.shapes.append(Line((before.bottom, block.top)))
                middle = (before.bottom[1] + block.top[1]) / 2
                self.lines((block.x - 8, middle), wrapped(level.map.does), "end", "soft")
                before = block

    def level(self, level: Level) -> None:
        """The arrows of one level of the decoder."""
        stride, layout = level.stride, self.layout
        path, refined, output = (
            self.blocks.get((column, stride)) for column in ("path", "refined", "output")
        )
        if path and level.lateral:
            skip = self.blocks["encoder", stride]
            self.arrow(skip.right, path.left, layout.across(level))
        if path and level.upsample:
            walk = [other.stride for other in self.found.levels if other.lateral or other.upsample]
            coarser = layout.path(walk[walk.index(stride) + 1])
            self.up(coarser, path, level.upsample.does)
        if refined:
            start = path or self.blocks["encoder", stride]
            self.arrow(start.right, refined.left, level.refine.does)
        if output and level.source:
            below = max(other.stride for other in self.found.levels if other.stride < stride)
            encoder = level.source == "encoder"
            start = self.blocks["encoder", below] if encoder else layout.source(below)
            self.coarser(start, output, level.output.does)
        elif output:
            self.arrow(layout.path(stride).right, output.left, level.output.does)

    def up(self, start: Block, end: Block, words: str) -> None:
        """An arrow from a level's path, or from the encoder's coarsest map, to the finer level."""
        (x, y), turn = end.entry, end.entry[1] + 13
        if start.x == self.layout.x["encoder"]:
            points, at = (start.right, (x, start.y), (x, y)), (x - 7, turn + 9)
        elif abs(start.x - x) < 1:
            points, at = (start.top, (x, y)), (x - 7, (start.top[1] + y) / 2)
        else:
            points = (start.top, (start.x, turn), (x, turn), (x, y))
            at = (start.x - 7, turn + 9)
        self.shapes.append(Line(points))
        self.lines(at, wrapped(words), "end")

    def coarser(self, start: Block, end: Block, words: str) -> None:
        """An arrow to a level above the walk's coarsest."""
        if abs(start.x - end.x) < 1:
            self.shapes.append(Line((start.bottom, end.top)))
            self.lines((end.x - 7, (start.bottom[1] + end.top[1]) / 2), (words,), "end")
        else:
            self.shapes.append(Line((start.bottom, (start.x, end.y), end.left)))
            self.lines(((start.x + end.left[0]) / 2, end.y - 9), (words,), "middle")

    def logits(self) -> None:
        """From the finest map, or from the sum of all levels, to the scores of the pixels."""
        prediction, logits = self.found.prediction, self.blocks.get(("logits", IMAGE))
        if logits is None:
            return
        start = self.layout.source(min(prediction.reads))
        if joined := self.blocks.get(("joined", min(prediction.reads))):
            bus = joined.left[0] - 22
            for stride in prediction.reads:
                source = self.layout.source(stride).right
                self.shapes.append(Line((source, (bus, source[1])), arrow=False))
                middle = ((source[0] + bus) / 2, source[1] - 9)
                self.lines(middle, (prediction.layers[stride],), "middle")
            lowest = self.layout.y[max(prediction.reads)]
            self.shapes.append(Line(((bus, lowest), (bus, joined.y), joined.left)))
            start = joined
        points = (start.top, logits.bottom)
        if start.x == self.layout.x["encoder"]:
            points = (start.right, (logits.x, start.y), logits.bottom)
        self.shapes.append(Line(points))
        middle = (points[-2][1] + points[-1][1]) / 2
        self.lines((logits.x - 7, middle), wrapped(prediction.last), "end")

    def predictions(self) -> None:
        """Of each level: by a head of its own, by one that all share, or in training alone."""
        prediction, layout = self.found.prediction, self.layout
        said = {stride: words for stride, words in prediction.says.items() if words}
        if not said:
            return
        training = prediction.logits is not None
        shared, words = prediction.shared and not training, max(prediction.layers.values(), key=len)
        room = 0.0 if shared else width_of(layout.words(words))
        x = max(self.end + 14, layout.free + room + 34)
        if shared:
            top, bottom = layout.y[min(said)] - 26, layout.y[max(said)] + 26
            self.shapes.append(Box(x, top, PILL, bottom - top, "head", 8))
            if name := layout.words(f"one head for all levels: {words}"):
                place = (x + 12, (top + bottom) / 2)
                self.shapes.append(Text(*place, name, 12, "ink", "middle", turned=True))
        chip = x + PILL + 20 if shared else x
        for stride, does in said.items():
            source, y = layout.source(stride), layout.y[stride]
            self.arrow(source.right, (x, y), dashed=training)
            if shared:
                self.arrow((x + PILL, y), (chip, y))
            else:
                self.lines((x - 12, y - 9), (prediction.layers.get(stride, ""),), "end")
            self.shapes.append(Box(chip, y - source.height / 2, CHIP, source.height, "logits"))
            self.lines((chip + CHIP + 8, y), (does,), "start")
        text = max(width_of(layout.words(does)) for does in said.values())
        self.end = max(self.end, chip + CHIP + 8 + text)

    def pooled(self) -> None:
        """A bracket around the levels that one prediction is pooled from."""
        prediction, layout = self.found.prediction, self.layout
        if not prediction.pooled:
            return
        x, alone = self.end + 12, not any(prediction.says.values())
        if alone:
            x += 40
            for stride in prediction.pooled:
                self.arrow(layout.source(stride).right, (x, layout.y[stride]))
        top, bottom = layout.y[min(prediction.pooled)], layout.y[max(prediction.pooled)]
        corners = ((x, top - 20), (x + 9, top - 20), (x + 9, bottom + 20), (x, bottom + 20))
        self.shapes.append(Line(corners, arrow=False))
        middle, chip = (top + bottom) / 2, x + 40
        self.arrow((x + 9, middle), (chip, middle))
        self.shapes.append(Box(chip, middle - 24, CHIP, 48, "logits"))
        self.lines((chip + CHIP + 8, middle), prediction.about, "start")
        text = max(width_of(layout.words(line)) for line in prediction.about)
        self.end = chip + CHIP + 8 + text

    def block(self, column: str, block: Block) -> None:
        """One map, with its numbers."""
        x, y = block.left[0], block.top[1]
        roles = ("encoder", block.role) if block.skip else (block.role,)
        for width, role in zip(block.parts, roles, strict=True):
            self.shapes.append(Box(x, y, width, block.height, role))
            x += width
        if block.sum:
            x, y = block.x, block.y
            self.shapes.append(Disc(x, y, 7, "head"))
            self.shapes.append(Line(((x - 4, y), (x + 4, y)), arrow=False))
            self.shapes.append(Line(((x, y - 4), (x, y + 4)), arrow=False))
        if column == "encoder":
            self.label((block.left[0] - 8, block.y), block, "end")
        elif column == "logits":
            self.label((block.right[0] + 8, block.y), block, "start")
        else:
            above = 14 if self.layout.plain else 21
            self.label((block.x + 7, block.top[1] - above), block, "start")

    def heading(self, title: str) -> Length:
        """Title, and the parts with their parameters; returns the width that they need."""
        parts = [f"{part} {kind} {n:,}" for part, (kind, n) in self.found.parts.items()]
        line = self.layout.words(" · ".join(parts) + " parameters")
        self.shapes.append(Text(MARGIN, 34, title, 18, bold=True))
        self.lines((MARGIN, 50), (line,), "start", "soft")
        return MARGIN * 2 + max(width_of(title, 18, True), width_of(line))

    def key(self, y: Length) -> Length:
        """What the colours mean; returns the width that it needs."""
        names = {"encoder": "encoder", "decoder": "decoder", "output": "output"}
        names["logits"] = "prediction"
        used = {shape.role for shape in self.shapes if isinstance(shape, Box)}
        x = MARGIN
        if self.layout.plain:
            return x
        for role, name in names.items():
            if role in used:
                self.shapes.append(Box(x, y - 10, 12, 12, role))
                self.shapes.append(Text(x + 18, y, name, 12, "soft"))
                x += 18 + width_of(name) + 18
        scale = "height: rows, width: channels"
        self.shapes.append(Text(x, y, scale, 12, "soft"))
        return x + width_of(scale) + MARGIN
