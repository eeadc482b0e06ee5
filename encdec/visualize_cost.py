"""What networks cost against how good they are."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from encdec.table import Row
from encdec.visualize import SERIES


def cost(
    rows: list[Row], x: str, scores: Sequence[str], lines: Sequence[Sequence[str]] = ()
) -> Figure:
    """A panel for each score over the cost, a numbered point for each row, the numbers explained
    below; bars are the spread of the seeds.

    Args:
      rows: those of `encdec.table`; the first column names them.
      x: the column of the cost, on a logarithmic axis.
      scores: columns, numbers or (mean, spread).
      lines: names of rows that are joined, each line in a colour of its own; a row takes that of
        the first line that it is on.
    """
    name = next(iter(rows[0]))
    number = {row[name]: i for i, row in enumerate(rows, 1)}
    by_name = {row[name]: row for row in rows}
    colours = {form: SERIES[i] for i, line in reversed([*enumerate(lines)]) for form in line}
    deep = -(-len(rows) // len(scores))
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
            there = [places[form] for form in line if form in places]
            axes.plot(*zip(*there, strict=True), color=SERIES[k], linewidth=1, alpha=0.5)
        axes.set_xscale("log")
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
