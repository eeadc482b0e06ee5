"""A drawing of boxes, lines and text, as SVG and as PNG, on light and on dark paper.

Places and lengths are in pixels, y downwards; a shape's `role` gives its colours. Text is escaped.
"""

import io
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args

from encdec.errors import InputError, visible

Theme = Literal["auto", "light", "dark"]
"""auto: light, and dark where the reader's screen is; of a PNG light."""

Role = Literal["image", "encoder", "decoder", "output", "logits", "head", "ink", "soft", "paper"]
"""Filled shapes have the first six; lines and text ink or soft; what is below them is paper."""

THEMES: dict[str, dict[str, tuple[str, str]]] = {
    "light": {
        "image": ("#d5d8dc", "#767d86"),
        "encoder": ("#a9cdea", "#2b6ca3"),
        "decoder": ("#f6cf8b", "#a86c00"),
        "output": ("#a5dbc4", "#0b7a57"),
        "logits": ("#ecbcd6", "#a2437b"),
        "head": ("#eef0f2", "#767d86"),
        "ink": ("#1d2126", "#3c434c"),
        "soft": ("#5d6570", "#9aa1aa"),
        "paper": ("#ffffff", "none"),
    },
    "dark": {
        "image": ("#4a515a", "#a3abb5"),
        "encoder": ("#2a5b85", "#86bce8"),
        "decoder": ("#83560b", "#f0b751"),
        "output": ("#146148", "#5fd0a8"),
        "logits": ("#7c3560", "#e99cc8"),
        "head": ("#23282f", "#8b939d"),
        "ink": ("#e8eaed", "#c3c9d0"),
        "soft": ("#a3abb5", "#6d757f"),
        "paper": ("#14171b", "none"),
    },
}
"""Of a filled shape its area and its edge; of the others text and lines."""

Length = int | float
"""Pixels."""

Point = tuple[Length, Length]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Box:
    """A rectangle from its upper left corner; `radius` rounds it."""

    x: Length
    y: Length
    width: Length
    height: Length
    role: Role
    radius: Length = 2.0


@dataclass(frozen=True)
class Disc:
    x: Length
    y: Length
    radius: Length
    role: Role


@dataclass(frozen=True)
class Line:
    """Through all points; the arrow's head is at the last."""

    points: tuple[Point, ...]
    role: Role = "ink"
    arrow: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text; y is its base line. `turned`: it reads upwards."""

    x: Length
    y: Length
    text: str
    size: Length = 12.0
    role: Role = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False
    turned: bool = False


Shape = Box | Disc | Line | Text


def width_of(text: str, size: Length = 12.0, bold: bool = False) -> Length:
    """Pixels that a line of text takes at most, in the fonts that screens have."""
    thin = sum(letter in " ,.:;()/'ijl" for letter in text)
    return (0.62 * len(text) - 0.28 * thin) * size * (1.1 if bold else 1)


@dataclass(frozen=True)
class Drawing:
    """Shapes on paper of a size; a notebook shows it.

    Attributes:
      title: what a screen reader says.
    """

    shapes: tuple[Shape, ...]
    width: Length
    height: Length
    title: str

    def svg(self, theme: Theme = "auto") -> str:
        """The whole SVG; it needs nothing else."""
        _check(theme)
        style = _style(THEMES["dark" if theme == "dark" else "light"])
        if theme == "auto":
            style += f"@media(prefers-color-scheme:dark){{{_style(THEMES['dark'])}}}"
        title, wide, high = escape(visible(self.title)), _short(self.width), _short(self.height)
        body = "\n".join(_svg(shape) for shape in self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}" role="img" aria-label="{title}"><title>{title}</title>\n'
            f"<style>text{{font-family:{FONT}}}.l{{fill:none;stroke-width:1.3}}{style}</style>\n"
            f'<rect class="paper" width="{wide}" height="{high}"/>\n{body}\n</svg>\n'
        )

    def png(self, theme: Theme = "auto", scale: Length = 2.0) -> bytes:
        """A PNG of `scale` times the size in pixels."""
        _check(theme)
        return _png(self, THEMES["dark" if theme == "dark" else "light"], scale)

    def save(self, path: Path, theme: Theme = "auto") -> None:
        """Writes FILE.svg or FILE.png.

        Raises:
          InputError: it is neither, or cannot be written.
        """
        if path.suffix not in (".svg", ".png"):
            raise InputError(f"wanted files .svg or .png; got {path}: name another --out")
        data = self.svg(theme).encode() if path.suffix == ".svg" else self.png(theme)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path} cannot be written, {reason}: name another --out") from error

    def _repr_svg_(self) -> str:
        return self.svg()


def beside(drawings: list[Drawing], title: str) -> Drawing:
    """One drawing of several, from left to right."""
    shapes, right = [], 0.0
    for drawing in drawings:
        shapes += [_moved(shape, right) for shape in drawing.shapes]
        right += drawing.width
    height = max(drawing.height for drawing in drawings)
    return Drawing(tuple(shapes), right, height, title)


def _moved(shape: Shape, right: Length) -> Shape:
    if isinstance(shape, Line):
        return replace(shape, points=tuple((x + right, y) for x, y in shape.points))
    return replace(shape, x=shape.x + right)


def _check(theme: str) -> None:
    if theme not in get_args(Theme):
        raise InputError(f"wanted a theme of {', '.join(get_args(Theme))}; got {theme!r}")


def _style(colours: dict[str, tuple[str, str]]) -> str:
    """CSS classes: of areas by role, of text t-role, of lines l-role."""
    rules = ""
    for role, (area, edge) in colours.items():
        rules += f".{role}{{fill:{area};stroke:{edge}}}"
        if role in ("ink", "soft"):
            rules += f".t-{role}{{fill:{area}}}.l-{role}{{stroke:{edge}}}.h-{role}{{fill:{edge}}}"
    return rules


def _short(number: Length) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _svg(shape: Shape) -> str:
    if isinstance(shape, Box):
        x, y, wide, high, r = map(
            _short, (shape.x, shape.y, shape.width, shape.height, shape.radius)
        )
        return (
            f'<rect class="{shape.role}" x="{x}" y="{y}" width="{wide}" height="{high}" rx="{r}"/>'
        )
    if isinstance(shape, Disc):
        x, y, r = map(_short, (shape.x, shape.y, shape.radius))
        return f'<circle class="{shape.role}" cx="{x}" cy="{y}" r="{r}"/>'
    if isinstance(shape, Line):
        dashes = ' stroke-dasharray="4 3"' if shape.dashed else ""
        path = f'<path class="l l-{shape.role}" d="M{_path(_shaft(shape))}"{dashes}/>'
        head = f'<path class="h-{shape.role}" d="M{_path(_head(shape))}Z"/>' if shape.arrow else ""
        return path + head
    x, y = _short(shape.x), _short(shape.y)
    turn = f' transform="rotate(-90 {x} {y})"' if shape.turned else ""
    bold = ' font-weight="600"' if shape.bold else ""
    return (
        f'<text class="t-{shape.role}" x="{x}" y="{y}" font-size="{_short(shape.size)}" '
        f'text-anchor="{shape.anchor}"{bold}{turn}>{escape(visible(shape.text))}</text>'
    )


def _path(points: tuple[Point, ...]) -> str:
    return "L".join(f"{_short(x)} {_short(y)}" for x, y in points)


def _direction(line: Line) -> Point:
    (x0, y0), (x1, y1) = line.points[-2:]
    length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
    return (x1 - x0) / length, (y1 - y0) / length


def _shaft(line: Line) -> tuple[Point, ...]:
    """The line without the part that lies under the arrow's head."""
    if not line.arrow:
        return line.points
    (dx, dy), (x, y) = _direction(line), line.points[-1]
    return (*line.points[:-1], (x - 6 * dx, y - 6 * dy))


def _head(line: Line) -> tuple[Point, ...]:
    """The three corners of the arrow's head."""
    (dx, dy), (x, y) = _direction(line), line.points[-1]
    back = (x - 8 * dx, y - 8 * dy)
    return (
        (x, y),
        (back[0] - 3.5 * dy, back[1] + 3.5 * dx),
        (back[0] + 3.5 * dy, back[1] - 3.5 * dx),
    )


def _png(drawing: Drawing, colours: dict[str, tuple[str, str]], scale: Length) -> bytes:
    from matplotlib.figure import Figure  # takes a while to import

    figure = Figure((drawing.width / 100, drawing.height / 100), dpi=100 * scale)
    figure.set_facecolor(colours["paper"][0])
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, drawing.width), ylim=(drawing.height, 0))
    axes.set_axis_off()
    for order, shape in enumerate(drawing.shapes):
        if isinstance(shape, Text):
            axes.text(
                shape.x,
                shape.y,
                visible(shape.text),
                size=shape.size * 0.66,  # in points, of 1/72; DejaVu Sans is wide
                color=colours[shape.role][0],
                ha={"start": "left", "middle": "center", "end": "right"}[shape.anchor],
                va="baseline",
                weight="bold" if shape.bold else "normal",
                rotation=90 if shape.turned else 0,
                rotation_mode="anchor",
                parse_math=False,
                zorder=order,
            )
        else:
            for artist in _artists(shape, colours):
                artist.set_zorder(order)
                axes.add_artist(artist)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _artists(shape: Box | Disc | Line, colours: dict[str, tuple[str, str]]) -> list[Any]:
    """matplotlib's patches of one shape."""
    from matplotlib import patches

    area, edge = colours[shape.role]
    if isinstance(shape, Line):
        dashes = (0, (4, 3)) if shape.dashed else "solid"
        look = {"edgecolor": edge, "linewidth": 0.95, "linestyle": dashes}
        shaft = patches.Polygon(_shaft(shape), closed=False, fill=False, **look)
        head = patches.Polygon(_head(shape), facecolor=edge, edgecolor="none")
        return [shaft, head] if shape.arrow else [shaft]
    look = {"facecolor": area, "edgecolor": edge, "linewidth": 0.72}
    if isinstance(shape, Disc):
        return [patches.Circle((shape.x, shape.y), shape.radius, **look)]
    radius = min(shape.radius, shape.width / 2, shape.height / 2)
    style = f"round,pad=0,rounding_size={radius}"
    corner = (shape.x, shape.y)
    return [patches.FancyBboxPatch(corner, shape.width, shape.height, style, **look)]
