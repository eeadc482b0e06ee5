"""Where the maps of a network lie in its figure: a row for each stride, coarse ones below.

Lengths are in pixels, y downwards.
"""

import math
from dataclasses import dataclass, replace

from encdec.figures.architecture import Architecture, Level, Size
from encdec.figures.drawing import Length, Point, Role, width_of

MARGIN, HEAD = 24.0, 76.0
"""Around everything; above the first row."""

TALLEST, LEAST = 128.0, 22.0
"""Heights of the block with most rows, and of any block at least."""

IMAGE = 0
"""Key of the first row, where the image and the logits are: above stride 1."""


@dataclass(frozen=True)
class Block:
    """A map, centred on (x, y): height by its rows, width by its channels.

    Attributes:
      skip: channels of the part that came across, where two were concatenated.
      sum: it is one.
    """

    size: Size
    role: Role
    height: Length
    skip: int = 0
    sum: bool = False
    x: Length = 0
    y: Length = 0

    @property
    def parts(self) -> tuple[float, ...]:
        """Widths from left to right: of the skip, then of what came up; else of all."""
        channels = (self.skip, self.size[2] - self.skip) if self.skip else self.size[2:]
        return tuple(5 + 1.4 * math.sqrt(number) for number in channels)

    @property
    def half(self) -> float:
        return sum(self.parts) / 2

    @property
    def left(self) -> Point:
        return self.x - self.half, self.y

    @property
    def right(self) -> Point:
        return self.x + self.half, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def entry(self) -> Point:
        """Where an arrow from below ends: under the part that came up."""
        return self.x + self.half - self.parts[-1] / 2, self.bottom[1]

    @property
    def channels(self) -> str:
        both = f"{self.skip} + {self.size[2] - self.skip}"
        return both if self.skip else str(self.size[2])

    @property
    def cells(self) -> str:
        return f"{self.size[0]}×{self.size[1]}"


class Layout:
    """Every block in its column and row.

    Columns are "encoder", "path" (what is merged), "refined", "output", "joined" and "logits"; one
    that the network has no use for takes no room.

    Attributes:
      blocks: by (column, stride).
      y: of each row; `below` all of them is free.
      end: right of everything; `free`, right of the last column's blocks, labels aside.
    """

    def __init__(self, found: Architecture, plain: bool) -> None:
        self.found, self.plain = found, plain
        self.blocks: dict[tuple[str, int], Block] = {}
        self._maps()
        self._rows()
        self._columns()
        self._logits()

    def _maps(self) -> None:
        """A block for every map that is another one than the map before it."""
        found = self.found
        self._add("encoder", IMAGE, found.image, "image")
        for level in found.levels:
            if level.map:
                self._add("encoder", level.stride, level.map.size, "encoder")
            if level.upsample or (level.lateral and level.lateral.does):
                what = level.merged or level.lateral
                skip = level.lateral.size[2] if what.does == "concatenate" else 0
                self._add("path", level.stride, what.size, "decoder", skip, what.does == "add")
            if level.refine and level.refine.does:
                self._add("refined", level.stride, level.refine.size, "decoder")
            if level.output and level.output.does:
                self._add("output", level.stride, level.output.size, "output")
        if found.prediction.joined:
            stride = min(found.prediction.reads)
            self._add("joined", stride, found.prediction.joined, "output", sum=True)
        if found.prediction.logits:
            self._add("logits", IMAGE, found.prediction.logits, "logits")

    def _add(
        self, column: str, stride: int, size: Size, role: Role, skip: int = 0, sum: bool = False
    ) -> None:
        sizes = [self.found.image] + [level.map.size for level in self.found.levels if level.map]
        share = min(1, size[0] / max(rows for rows, _, _ in sizes))
        height = max(LEAST, TALLEST * share**0.6)
        self.blocks[column, stride] = Block(size, role, height, skip, sum)

    def _rows(self) -> None:
        gap, top = 70 if self.column("refined") else 56, HEAD
        if self.plain:  # alike, so that the rows of several figures beside each other are level
            gap, top = 48, 60.0
        self.y: dict[int, Length] = {}
        for stride in sorted({stride for _, stride in self.blocks}):
            height = max(block.height for (_, s), block in self.blocks.items() if s == stride)
            self.y[stride], top = top + height / 2, top + height + gap
        self.below = top - gap
        for key, block in self.blocks.items():
            self.blocks[key] = replace(block, y=self.y[key[1]])

    def _columns(self) -> None:
        """Room for the blocks, for the labels on them and for the words on arrows."""
        levels = self.found.levels
        across = [self.across(level) for level in levels if ("path", level.stride) in self.blocks]
        ups = [level.upsample.does for level in levels if level.upsample]
        arrows = {
            "path": [*across, *wrapped(self.found.prediction.last), *ups],
            "refined": [level.refine.does for level in levels if level.refine],
            "output": [level.output.does for level in levels if level.output],
            "joined": list(self.found.prediction.layers.values()),
        }
        down = [line for level in levels if level.map for line in wrapped(level.map.does)]
        wide = max(block.half for block in self.column("encoder"))
        room = [
            max(map(width_of, self.label(block))) + block.half for block in self.column("encoder")
        ]
        strides = 0 if self.plain else width_of("stride 128")
        x = MARGIN + strides + max(*room, *(width_of(self.words(line)) for line in down)) + 8
        self.x, self.free, self.end = {"encoder": x}, x + wide, x + wide
        for column, words in arrows.items():
            if blocks := self.column(column):
                half = max(block.half for block in blocks)
                arrow = self.free + max(width_of(self.words(word)) for word in words) + 34
                bus = 24 if column == "joined" else 0  # passes right of the labels
                self.x[column] = x = max(arrow, self.end + 8 + bus) + half
                label = max(width_of(w, bold=True) for b in blocks for w in self.label(b))
                self.free, self.end = x + half, x + max(half, label + 7)
        for key, block in self.blocks.items():
            self.blocks[key] = replace(block, x=self.x.get(key[0], 0.0))

    def _logits(self) -> None:
        """Above what they are made of, or right of the encoder."""
        if logits := self.blocks.get(("logits", IMAGE)):
            above = self.x.get("joined", self.source(min(self.found.prediction.reads)).x)
            if above == self.x["encoder"]:
                above = self.end + (60 if self.plain else 150)
            self.blocks["logits", IMAGE] = logits = replace(logits, x=above)
            words = max(width_of(word, bold=True) for word in self.label(logits))
            self.end = max(self.end, logits.right[0] + 8 + words)

    def column(self, name: str) -> list[Block]:
        """Its blocks."""
        return [block for (column, _), block in self.blocks.items() if column == name]

    def path(self, stride: int) -> Block:
        """What goes up from a level."""
        columns = [name for name in ("refined", "path") if (name, stride) in self.blocks]
        return self.blocks[(columns or ["encoder"])[0], stride]

    def source(self, stride: int) -> Block:
        """What the decoder returns of a level."""
        return self.blocks.get(("output", stride)) or self.path(stride)

    def words(self, text: str) -> str:
        """The text, unless the figure is plain."""
        return "" if self.plain else text

    def label(self, block: Block) -> tuple[str, ...]:
        """What stands at a block."""
        first, then = block.channels, block.cells
        if block.role == "image":
            first, then = "image", f"{block.cells}×{block.channels}"
        elif block.role == "logits":
            first = f"{block.channels} classes"
        return (first,) if self.plain else (first, then)

    def across(self, level: Level) -> str:
        """What happens to a skip on its way."""
        if level.lateral is None:
            return ""
        cropped = level.merged and level.merged.size[:2] != level.lateral.size[:2]
        return (level.lateral.does or "copy") + (", crop" if cropped else "")


def wrapped(words: str, most: int = 20) -> tuple[str, ...]:
    """Lines of at most that many letters, where commas let them end."""
    lines: list[str] = []
    for piece in words.split(", "):
        if lines and len(lines[-1]) + len(piece) + 2 <= most:
            lines[-1] += f", {piece}"
        else:
            lines.append(piece)
    return tuple(lines)
