"""Report pages: one HTML file that needs nothing else, and the pictures of the README beside it.

A row of a table is {column: value}, the first column being the name. A value is text, a number, or
(mean, spread) over seeds; None and NaN are shown as a dash. A sample is {"image": uint8 (h, w, 3),
"label": uint8 (H, W), "predictions": {name: uint8 (H, W)}}, H and W whole multiples of h and w.
"""

import io
import itertools
import math
import numbers
import re
from base64 import b64encode
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from encdec import visualize
from encdec.arrays import IGNORE
from encdec.errors import InputError

BEST = {
    "images/s": max,
    "memory MiB": min,
    "pixel accuracy": max,
    "mean accuracy": max,
    "mean IoU": max,
    "boundary F": max,
}
"""Columns that are measured, in which the best value is marked; the others describe the model."""

SCORES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F"}

BELOW = "Below: where it is, where pairs differ, what is wrong."
CLOSE = (
    "Enlarged where the models disagree most. Below each crop: where in the image it is; how many "
    "pairs of models differ, brighter for more; and the errors of each model."
)

PAGE = """<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style><main><h1>{title}</h1>
{body}
</main></html>
"""

STYLE = """
:root{color-scheme:light dark;--paper:#fdfdfb;--ink:#1d2126;--soft:#666d77;--line:#dfe1e4;
--wash:#f3f4f2}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e6e9;--soft:#979ea8;--line:#30353c;
--wash:#1d2126}}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 Charter,Georgia,serif}
main{max-width:1080px;margin:auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 1rem}h2{font-size:1.25rem;margin:2.6rem 0 .6rem}
p{margin:.6rem 0;max-width:44rem}.note{color:var(--soft);font-size:.9rem}
pre{background:var(--wash);padding:.6rem .9rem;border-radius:6px;overflow-x:auto;margin:.6rem 0;
font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
.scroll{overflow-x:auto}table{border-collapse:collapse}
table,figcaption,.key,.tiles,dl,svg text{font-family:system-ui,sans-serif!important}
table,dl{font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.42rem .9rem .42rem 0;
border-bottom:1px solid var(--line)}
tr:first-child th{vertical-align:bottom}.scroll tr:first-child th{color:var(--soft);font-weight:500}
.scroll th:first-child{position:sticky;left:0;background:var(--paper)}
table th:first-child{white-space:nowrap}.charts figure{max-width:26rem}
.n{text-align:right;white-space:nowrap}td small{color:var(--soft);font-weight:400}
.charts,.strip{display:grid;gap:.8rem;margin:.6rem 0 1.2rem}
.charts{grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr))}
.strip{grid-template-columns:repeat(auto-fit,minmax(100px,1fr))}
figure{margin:0}svg{width:100%;height:auto}svg text{fill:currentColor}
img{display:block;width:100%;border-radius:3px}.px{image-rendering:pixelated}
figcaption{font-size:13px;line-height:1.3;margin:.3rem 0}
figcaption small{display:block;color:var(--soft)}
.key{font-size:13px;max-width:none}.key span{margin-right:1.1rem;white-space:nowrap}
.chip{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.tiles{display:flex;flex-wrap:wrap;gap:.5rem 2.4rem;font-size:13px;color:var(--soft)}
.tiles b{display:block;font-size:1.7rem;line-height:1.2;color:var(--ink);font-weight:600}
.classes{width:100%;max-width:44rem}.classes th{font-weight:400}.wide{width:60%}
.bar{display:block;height:.8em;margin-top:.25em;background:#0072b2;border-radius:2px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.35rem 1.4rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll td:not(.n){min-width:7rem}
@media(max-width:600px){.strip{grid-template-columns:repeat(2,1fr);gap:.5rem}
.strip:has(:nth-child(5)){grid-template-columns:repeat(4,1fr)}
dl{grid-template-columns:minmax(0,1fr);gap:.1rem}dd{margin-bottom:.5rem}}
"""


def table(rows: list[dict[str, object]]) -> str:
    """The rows as an aligned Markdown table, best values bold; it reads as well on a console."""
    columns, best = _columns(rows), _best(rows)
    cells = [[column.replace("|", "\\|") for column in columns]]
    for row in rows:
        shown = [show(column, row.get(column)).replace("|", "\\|") for column in columns]
        marks = [best.get(c) == row.get(c) is not None for c in columns]
        cells.append([f"**{text}**" if m else text for text, m in zip(shown, marks, strict=True)])
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    right = [_numeric(rows, column) for column in columns]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    lines = []
    for line in (cells[0], rule, *cells[1:]):
        aligned = [
            text.rjust(w) if r else text.ljust(w)
            for text, w, r in zip(line, widths, right, strict=True)
        ]
        lines.append(f"| {' | '.join(aligned)} |")
    return "\n".join(lines)


def write_comparison(
    folder: Path,
    *,
    title: str,
    command: str,
    rows: list[dict[str, object]],
    histories: dict[str, list[dict]],
    samples: list[dict],
    classes: tuple[str, ...],
    facts: dict[str, str],
) -> Path:
    """Writes report.html, comparison.png, curves.png and differences.png; returns the page's path.

    Args:
      rows: one for each model, in order; the first column names the model as `samples` do.
      histories: by model, [{"step", "loss", optional "val": {"mean_iou": …}}, …] in order of step.
      samples: test images segmented by every model; the first four make comparison.png.
      facts: what else a reader must know (data, budget, machine, versions), by name.
    """
    if not rows or not samples:
        raise InputError(
            f"a comparison has at least one row and one sample; got {len(rows)} rows and "
            f"{len(samples)} samples; evaluate a model first"
        )
    _check(samples)
    folder.mkdir(parents=True, exist_ok=True)
    panels = _panels(histories)
    visualize.curves(panels, key=True).savefig(folder / "curves.png", dpi=200)
    scores = {str(next(iter(row.values()))): show("mean IoU", row.get("mean IoU")) for row in rows}
    parts = [f"<p>{_summary(rows)}</p>", f"<pre>{escape(command)}</pre>", *_tables(rows)]
    parts += ["<h2>Training</h2>", _charts(panels)]
    parts += _compared(folder, samples, classes, scores) + _differences(folder, samples, classes)
    return _page(folder, title, [*parts, "<h2>Facts</h2>", _facts(facts)])


def write_run(
    folder: Path,
    *,
    title: str,
    history: list[dict],
    scores: dict[str, float],
    per_class: dict[str, float],
    samples: list[dict],
    classes: tuple[str, ...],
    facts: dict[str, str],
) -> Path:
    """Writes report.html of one run; returns its path.

    Args:
      scores: of the whole split, by name.
      per_class: IoU in [0, 1] by class; NaN for a class that neither truth nor prediction has.
      samples: may be empty; all else as in `write_comparison`.
    """
    _check(samples)
    folder.mkdir(parents=True, exist_ok=True)
    k, colours = len(classes), visualize.palette(len(classes)).tolist()
    tiles = "".join(
        f"<div><b>{show(SCORES.get(name, name), value)}</b>{escape(SCORES.get(name, name))}</div>"
        for name, value in scores.items()
    )
    parts = [f"<div class=tiles>{tiles}</div>", "<h2>Training</h2>", _charts(_panels(history))]
    ranked = sorted(per_class.items(), key=lambda c: c[1] if math.isfinite(c[1]) else math.inf)
    lines = ""
    for name, iou in ranked:
        chip = _chip(colours[classes.index(name)]) if name in classes else ""
        known = math.isfinite(iou)
        bar = f'<i class=bar style="width:{100 * iou:.1f}%"></i>' if known else ""
        value = show("mean IoU", iou) if known else "absent"
        lines += f"<tr><th>{chip}{escape(name)}</th><td>{value}</td><td class=wide>{bar}</td></tr>"
    parts += ["<h2>IoU by class, worst first</h2>", f"<table class=classes>{lines}</table>"]
    if samples:
        parts += ["<h2>Samples</h2>", _key(visualize.legend(classes, _maps(samples)))]
    for sample in samples:
        image, label = sample["image"], sample["label"]
        figures = _figure(image, "image") + _figure(visualize.overlay(image, label, k), "truth")
        for name, labels in sample["predictions"].items():
            figures += _figure(visualize.overlay(image, labels, k), name)
            figures += _figure(visualize.errors(labels, label), f"wrong: {_share(labels, label)}")
        parts.append(f"<div class=strip>{figures}</div>")
    return _page(folder, title, [*parts, "<h2>Facts</h2>", _facts(facts)])


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
    if re.search("accuracy|iou|f$", column.lower()):
        return f"{value:.3f}"
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def _columns(rows: list[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _number(value: object) -> float:
    """The number (of several seeds: their mean) in a cell; NaN where there is none."""
    value = value[0] if isinstance(value, tuple) else value
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _numeric(rows: list[dict[str, object]], column: str) -> bool:
    return any(math.isfinite(_number(row.get(column))) for row in rows)


def _best(rows: list[dict[str, object]]) -> dict[str, object]:
    """The best cell of each measured column; nothing to mark where there is one row only."""
    best = {}
    for column, choose in BEST.items():
        cells = [row[column] for row in rows if math.isfinite(_number(row.get(column)))]
        if len(cells) > 1:
            best[column] = choose(cells, key=_number)
    return best


def _summary(rows: list[dict[str, object]]) -> str:
    said = []
    for column, words in {
        "mean IoU": "Highest mean IoU",
        "boundary F": "Highest boundary F",
    }.items():
        if column in (best := _best(rows)):
            row = next(row for row in rows if row.get(column) == best[column])
            name = escape(str(next(iter(row.values()))))
            value = show(column, best[column]).replace(" ", "\u00a0")
            said.append(f"{words}: <b>{name}</b> ({value}).")
    return "One encoder, the same data and budget; only the decoder differs. " + " ".join(said)


def _tables(rows: list[dict[str, object]]) -> list[str]:
    """What was measured, then what each model is: two tables, since one would be too wide."""
    first, *columns = _columns(rows)
    result = [column for column in columns if column in BEST]
    design = [column for column in columns if column not in BEST]
    parts = []
    if result:
        note = "Best value of each column in bold."
        if any(isinstance(v, tuple) for row in rows for v in row.values()):
            note += " Mean ± spread over seeds."
        parts += ["<h2>What each decoder reaches</h2>", _table(rows, [first, *result]), _note(note)]
    if design:
        parts += ["<h2>How each decodes</h2>", _table(rows, [first, *design])]
    return parts


def _compared(folder: Path, samples: list[dict], classes: tuple, scores: dict) -> list[str]:
    """Writes comparison.png of the first four samples; returns the page's section."""
    names, key = list(samples[0]["predictions"]), visualize.legend(classes, _maps(samples))
    heads = [f"{name}\nmean IoU {scores[name]}" if name in scores else name for name in names]
    strips = [_strip(sample, len(classes)) for sample in samples]
    sheet = visualize.grid(strips[:4], ["image", "truth", *heads], [""] * len(strips[:4]), key)
    _save(folder / "comparison.png", sheet)
    note = _note("Below each name: the share of counted pixels that are wrong.")
    pictures = [_pictures(s, strip) for s, strip in zip(samples[:8], strips, strict=False)]
    return ["<h2>The same images, segmented by all</h2>", note, _key(key), *pictures]


def _differences(folder: Path, samples: list[dict], classes: tuple) -> list[str]:
    """Writes differences.png; returns the page's section."""
    crops = visualize.differences(samples, most=3)
    rows, captions = [], []
    marks = {"right": visualize.DIM, "wrong": visualize.RED}
    parts = ["<h2>Where they differ most</h2>", _note(CLOSE), _key(marks)]
    for crop in crops:
        wrong = [visualize.errors(p, crop["label"]) for p in crop["predictions"].values()]
        below = [crop["frame"], crop["disagreement"], *wrong]
        rows += [_strip(crop, len(classes)), below]
        captions += ["", f"{crop['where']} {BELOW}"]
        stacked = [_stack(*pair) for pair in zip(*rows[-2:], strict=True)]
        parts += [_pictures(crop, stacked), _note(crop["where"])]
    heads = ["image", "truth", *samples[0]["predictions"]]
    key = visualize.legend(classes, _maps(crops)) | marks
    _save(folder / "differences.png", visualize.grid(rows, heads, captions, key))
    return parts


def _stack(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Two pictures of one width, a white line between."""
    width = max(top.shape[1], 240)
    top, bottom = visualize.fit(top, width), visualize.fit(bottom, width)
    return np.concatenate([top, np.full((6, width, 3), 255, np.uint8), bottom])


def _check(samples: list[dict]) -> None:
    for i, sample in enumerate(samples):
        if list(sample["predictions"]) != (names := list(samples[0]["predictions"])):
            raise InputError(
                f"every sample is predicted by the same models, {names}; got "
                f"{list(sample['predictions'])} for sample {i}; predict it with all of them"
            )
        for name, labels in sample["predictions"].items():
            if labels.shape != sample["label"].shape:
                raise InputError(
                    f"a prediction is as large as its label, {sample['label'].shape}; got "
                    f"{labels.shape} by {name} for sample {i}; resize it to the label first"
                )


def _maps(samples: list[dict]) -> list[np.ndarray]:
    return [m for s in samples for m in (s["label"], *s["predictions"].values())]


def _strip(sample: dict, k: int) -> list[np.ndarray]:
    labels = (sample["label"], *sample["predictions"].values())
    return [sample["image"], *(visualize.colourise(m, k) for m in labels)]


def _share(predicted: np.ndarray, labels: np.ndarray) -> str:
    counted = labels != IGNORE
    return f"{100 * (predicted != labels)[counted].mean():.1f} %" if counted.any() else "–"


def _panels(histories: dict[str, list[dict]] | list[dict]) -> dict[str, dict]:
    """Lines by quantity: of several runs a line for each run, of one run a line for each score."""
    if isinstance(histories, list):
        validation = {words: _points(histories, key) for key, words in SCORES.items()}
        losses = {"training": visualize.smooth(_points(histories, "loss"))}
        return {"loss": losses, "validation": {n: p for n, p in validation.items() if p}}
    panels = {
        "training loss": {n: visualize.smooth(_points(h, "loss")) for n, h in histories.items()}
    }
    for key in ("mean_iou", "boundary_f"):
        panels[f"validation {SCORES[key]}"] = {n: _points(h, key) for n, h in histories.items()}
    return {quantity: lines for quantity, lines in panels.items() if any(lines.values())}


def _points(history: list[dict], key: str) -> list[visualize.Point]:
    found = ((h["step"], h.get(key, h.get("val", {}).get(key))) for h in history)
    return [(float(step), float(value)) for step, value in found if value is not None]


def _page(folder: Path, title: str, parts: list[str]) -> Path:
    text = "\n".join(parts)
    path = folder / "report.html"
    path.write_text(PAGE.format(title=escape(title), style=STYLE, body=text), encoding="utf-8")
    return path


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, optimize=True)


def _note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"


def _chip(colour: list[int] | tuple[int, ...] | str) -> str:
    css = colour if isinstance(colour, str) else "rgb({},{},{})".format(*colour)
    return f'<i class=chip style="background:{css}"></i>'


def _key(colours: dict) -> str:
    spans = (f"<span>{_chip(colour)}{escape(name)}</span>" for name, colour in colours.items())
    return f"<p class=key>{''.join(spans)}</p>"


def _facts(facts: dict[str, str]) -> str:
    lines = ""
    for name, fact in facts.items():
        value = f"<pre>{escape(fact)}</pre>" if "\n" in fact else escape(fact)
        lines += f"<dt>{escape(name)}</dt><dd>{value}</dd>"
    return f"<dl>{lines}</dl>"


def _table(rows: list[dict[str, object]], columns: list[str]) -> str:
    best = _best(rows)
    side = {column: " class=n" if _numeric(rows, column) else "" for column in columns}
    body = "".join(f"<th{side[column]}>{escape(column)}</th>" for column in columns)
    for row in rows:
        cells = f"<th>{escape(show(columns[0], row.get(columns[0])))}</th>"
        for column in columns[1:]:
            text = escape(show(column, row.get(column))).replace(" ±", "&nbsp;<small>±")
            text += "</small>" if "<small>" in text else ""
            marked = row.get(column) is not None and row.get(column) == best.get(column)
            cells += f"<td{side[column]}>{f'<b>{text}</b>' if marked else text}</td>"
        body += f"<tr>{cells}</tr>"
    return f"<div class=scroll><table>{body}</table></div>"


def _charts(panels: dict[str, dict]) -> str:
    """Panels as inline SVG whose black is the page's own text colour."""
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    key = _key(dict(zip(names, itertools.cycle(visualize.SERIES))))
    figures = ""
    for quantity, lines in panels.items():
        # Empty lines keep each name's colour the same in every panel.
        figure = visualize.curves({quantity: dict.fromkeys(names, []) | lines}, key=False)
        file = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": quantity}):
            blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(file, format="svg", transparent=True, metadata=blank)
        svg = file.getvalue()
        svg = re.sub("#000000|#262626", "currentColor", svg[svg.index("<svg") :])
        figures += f"<figure>{svg}</figure>"
    return f"{key}<div class=charts>{figures}</div>"


def _figure(picture: np.ndarray, caption: str) -> str:
    """A picture, 640 pixels wide at most: PNG, or JPEG where it is a large photograph."""
    if picture.shape[1] > 640:
        picture = visualize.fit(picture, 640)
    image, file = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    small = image.width <= 256
    form = "PNG" if small or image.getcolors(4096) else "JPEG"  # None: there are more colours
    image.save(file, form, optimize=True, quality=90)
    data = f"data:image/{form.lower()};base64,{b64encode(file.getvalue()).decode()}"
    name, _, remark = caption.partition("\n")
    words = f"<figcaption>{escape(name)}<small>{escape(remark)}</small></figcaption>"
    crisp = " class=px" if small else ""
    return f'<figure><img{crisp} alt="{escape(name)}" src="{data}">{words}</figure>'


def _pictures(sample: dict, strip: list[np.ndarray]) -> str:
    shares = [f"{n}\n{_share(p, sample['label'])}" for n, p in sample["predictions"].items()]
    captions = ["image", "truth", *shares]
    figures = [_figure(p, caption) for p, caption in zip(strip, captions, strict=True)]
    return f"<div class=strip>{''.join(figures)}</div>"
