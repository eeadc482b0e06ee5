"""What networks cost against how good they are."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from encdec.table import Row
from encdec.visualize import SERIES

Tables = Sequence[tuple[str, list[Row]]]


def write_cost(path: Path, tables: Tables, x: str, scores: Sequence[str]) -> None:
    """Writes `cost` as an SVG, of the same bytes for the same tables."""
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        cost(tables, x, scores).savefig(path, metadata={"Date": None})


def cost(tables: Tables, x: str, scores: Sequence[str]) -> Figure:
    """A panel for each score over the cost, a numbered point for each form, the numbers explained
    below; bars are the spread of the seeds.

    Args:
      tables: (title, rows of `encdec.table`); the first column names a form, and "changes" the one
        that it was made from. The forms of the first table are joined: each walk to its end is a
        line in a colour of its own, and a form on two has that of the first.
      x: the column of the cost, on a logarithmic axis.
      scores: columns, numbers or (mean, spread).
    """
    name = next(iter(tables[0][1][0]))
    by_name = {row[name]: row for _, rows in tables for row in rows}
    number = {form: i for i, form in enumerate(by_name, 1)}
    lines = walks({row[name]: row.get("changes") for row in tables[0][1]})
    colours = {form: SERIES[i] for i, line in reversed([*enumerate(lines)]) for form in line}
    deep = -(-len(by_name) // len(scores))
    figure = Figure(figsize=(4.6 * len(scores), 4.2 + 0.2 * deep), layout="constrained")
    for i, score in enumerate(scores):
        axes = figure.add_subplot(1, len(scores), i + 1)
        places = {}
        for form, row in by_name.items():
            value = row[score] if isinstance(row[score], tuple) else (row[score], 0.0)
            places[form] = (row[x], value[0])
            colour = colours.get(form, "#8b939c")
            axes.errorbar(row[x], *value, fmt="o", color=colour, elinewidth=1, markersize=4)
            near = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(str(number[form]), places[form], color=colour, **near)
        for k, line in enumerate(lines):
            there = [places[form] for form in line]
            axes.plot(*zip(*there, strict=True), color=SERIES[k], linewidth=1, alpha=0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(score, loc="left", fontsize=11)
        axes.set_xlabel(x, fontsize=9)
        axes.tick_params(labelsize=9)
        axes.grid(color="#8b939c", alpha=0.25, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    words = [f"{number[form]}  {form}" for form in by_name]
    for i in range(len(scores)):
        part = "\n".join(words[i * deep : (i + 1) * deep])
        figure.axes[i].text(
            0, -0.16, part, transform=figure.axes[i].transAxes, fontsize=8, va="top"
        )
    return figure


def walks(bases: dict[str, str | None]) -> list[list[str]]:
    """From a form without a base to each that no other is made from, step by step."""
    found = []
    for end in [form for form in bases if form not in bases.values()]:
        line = [end]
        while bases.get(line[0]) in bases:
            line.insert(0, bases[line[0]])
        found.append(line)
    return found
