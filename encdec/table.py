"""Tables of measured models, as text.

A row is {column: value}, the first column being the name. A value is text, a number, or (mean,
spread) over seeds; None and NaN are shown as a dash.
"""

import math
import numbers
import re
import statistics

Row = dict[str, object]

BEST = {
    "images/s": max,
    "memory MiB": min,
    "pixel accuracy": max,
    "mean accuracy": max,
    "mean IoU": max,
    "boundary F": max,
    **dict.fromkeys(("V rand", "V info", "object F1", "ROC AUC"), max),
    **dict.fromkeys(("AP", "AP50", "AP75", "AR100", "AR1000"), max),
}
"""Columns that are measured, in which the best value is marked; the others describe the model."""


def table(rows: list[dict[str, object]]) -> str:
    """The rows as an aligned Markdown table, best values bold; it reads as well on a console."""
    columns, best = columns_of(rows), best_of(rows)
    cells = [[column.replace("|", "\\|") for column in columns]]
    for row in rows:
        shown = [show(column, row.get(column)).replace("|", "\\|") for column in columns]
        marks = [best.get(c) == row.get(c) is not None for c in columns]
        cells.append([f"**{text}**" if m else text for text, m in zip(shown, marks, strict=True)])
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    right = [numeric(rows, column) for column in columns]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    lines = []
    for line in (cells[0], rule, *cells[1:]):
        aligned = [
            text.rjust(w) if r else text.ljust(w)
            for text, w, r in zip(line, widths, right, strict=True)
        ]
        lines.append(f"| {' | '.join(aligned)} |")
    return "\n".join(lines)


def show(column: str, value: object) -> str:
    """A cell's text: scores to 3 decimals, other reals to 3 digits, whole numbers in full."""
    if isinstance(value, tuple):
        (mean, spread), text = value, show(column, value[0])
        places = len(text.partition(".")[2])
        return f"{text} ± {spread:,.{places}f}" if math.isfinite(mean + spread) else text
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if not isinstance(value, numbers.Real):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "–"
    if re.search(r"accuracy|iou|f1?$|auc|v (rand|info)|\ba[pr]\d*\b", column.lower()):
        return f"{value:z.3f}"
    return f"{value:z,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def spread(values: list[float]) -> float | tuple[float, float] | None:
    """A cell of several runs: (mean, standard deviation); the value of one; None without numbers,
    as average precision is where there are no such objects."""
    if not all(map(math.isfinite, values)):
        return None
    if len(values) == 1:
        return values[0]
    return statistics.mean(values), statistics.stdev(values)


def columns_of(rows: list[dict[str, object]]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def numeric(rows: list[dict[str, object]], column: str) -> bool:
    """Whether a column holds a number: it is then set flush right."""
    return any(math.isfinite(_number(row.get(column))) for row in rows)


def best_of(rows: list[dict[str, object]]) -> dict[str, object]:
    """The best cell of each measured column; nothing to mark where there is one row only."""
    best = {}
    for column, choose in BEST.items():
        cells = [row[column] for row in rows if math.isfinite(_number(row.get(column)))]
        if len(cells) > 1:
            best[column] = choose(cells, key=_number)
    return best


def _number(value: object) -> float:
    """The number (of several seeds: their mean) in a cell; NaN where there is none."""
    value = value[0] if isinstance(value, tuple) else value
    return float(value) if isinstance(value, numbers.Real) else math.nan
