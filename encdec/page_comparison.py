"""The page of several runs, and the pictures of the README beside it.

Rows are those of `encdec.table`, samples those of `encdec.sections`.
"""

from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from PIL import Image

from encdec import markup, page, sections, visualize
from encdec.errors import InputError
from encdec.samples import Sample, spread
from encdec.table import BEST, best_of, columns_of, show

BELOW = "Below: where it is, where pairs differ, what is wrong."
CLOSE = (
    "Enlarged where the models disagree most. Below each crop: where in the image it is; how many "
    "pairs of models differ, brighter for more; and the errors of each model."
)
ORDER = (
    "The worst images by the mean of all models' scores, then the median, then the best. Below "
    "what each model says: where that is wrong."
)


def write_comparison(
    folder: Path,
    *,
    title: str,
    intro: str,
    command: str,
    rows: list[dict[str, object]],
    histories: dict[str, list[dict]],
    per_class: dict[str, dict[str, float]],
    confusions: dict[str, Integer[np.ndarray, "k k"]],
    samples: list[Sample],
    classes: tuple[str, ...],
    facts: dict[str, str],
    settings: dict[str, str],
    changes: list[dict[str, object]] | None = None,
    kind: str = "iou",
) -> Path:
    """Writes report.html, curves.png and, of samples, comparison.png and (of label maps)
    differences.png; returns the page's path.

    Args:
      intro: what the models have in common, in a sentence or two.
      rows: one for each model, in order; the first column names the model as all else does.
      histories: by model, as in `page.write_run`, whose `facts`, `settings` and `kind` are these.
      per_class, confusions: by model; may be empty.
      samples: images predicted by every model; may be empty. Four of them make comparison.png.
      changes: in what the models' experiments differ, a row a flag; the first column names it.
    """
    if not rows:
        raise InputError("a comparison has at least one row; got none; evaluate a model first")
    sections.check(samples)
    folder.mkdir(parents=True, exist_ok=True)
    panels = _panels(histories)
    visualize.curves(panels, key=True).savefig(folder / "curves.png", dpi=200)
    parts = [f"<p>{escape(intro)} {_summary(rows)}</p>", f"<pre>{escape(command)}</pre>"]
    parts += [*_tables(rows), *_changes(changes or [])]
    parts += ["<h2>Training</h2>", markup.charts(panels)]
    parts += sections.by_class(per_class, classes, kind) + _confusions(confusions, classes)
    if samples:
        parts += ["<h2>The same images, by all</h2>", markup.note(ORDER)]
        parts.append(sections.key_of(samples, classes))
        parts += [sections.strip(sample, classes) for sample in samples]
        _sheet(folder / "comparison.png", samples, classes, rows)
        if "label" in samples[0]:
            parts += _differences(folder, samples, classes)
    parts += ["<h2>Machine and versions</h2>", markup.facts(facts)]
    return page.write(folder, title, [*parts, "<h2>Experiments</h2>", markup.folded(settings)])


def _summary(rows: list[dict[str, object]]) -> str:
    said = []
    for column in ("mean IoU", "boundary F", "AP", "AR1000"):
        if column in (best := best_of(rows)):
            row = next(row for row in rows if row.get(column) == best[column])
            name = escape(str(next(iter(row.values()))))
            value = show(column, best[column]).replace(" ", "\u00a0")
            said.append(f"Highest {column}: <b>{name}</b> ({value}).")
    return " ".join(said)


def _tables(rows: list[dict[str, object]]) -> list[str]:
    """What was measured, then what each model is: two tables, since one would be too wide."""
    first, *columns = columns_of(rows)
    result = [column for column in columns if column in BEST]
    design = [column for column in columns if column not in BEST]
    parts = []
    if result:
        note = "Best value of each column in bold." * (len(rows) > 1)
        if any(isinstance(v, tuple) for row in rows for v in row.values()):
            note += " Mean ± spread over seeds."
        parts += ["<h2>What each reaches</h2>", markup.table(rows, [first, *result])]
        parts.append(markup.note(note))
    if design:
        parts += ["<h2>What each is</h2>", markup.table(rows, [first, *design])]
    return parts


def _changes(rows: list[dict[str, object]]) -> list[str]:
    if not rows:
        return []
    return ["<h2>In what their flags differ</h2>", markup.table(rows, columns_of(rows))]


def _confusions(tables: dict[str, np.ndarray], classes: tuple[str, ...]) -> list[str]:
    shown = {name: sections.confusion(t, classes) for name, t in tables.items()}
    if not shown:
        return []
    parts = ["<h2>Confusions</h2>", markup.note(sections.CONFUSED)]
    return [*parts, *(markup.details(name, table) for name, table in shown.items())]


def _sheet(path: Path, samples: list[Sample], classes: tuple, rows: list[dict]) -> None:
    """comparison.png, of four of the samples."""
    some = [samples[i] for i in spread(4, len(samples))]
    scores = {str(next(iter(row.values()))): show("mean IoU", row.get("mean IoU")) for row in rows}
    remarks = {name: f"mean IoU {score}" for name, score in scores.items()}
    _save(path, sections.sheet(some, classes, remarks))


def _differences(folder: Path, samples: list[Sample], classes: tuple) -> list[str]:
    """Writes differences.png; returns the page's section."""
    crops = visualize.differences(samples, most=3)
    rows, captions = [], []
    marks = {"right": visualize.DIM, "wrong": visualize.RED}
    parts = ["<h2>Where they differ most</h2>", markup.note(CLOSE)]
    for crop in crops:
        wrong = [visualize.errors(p, crop["label"]) for p in crop["predictions"].values()]
        below = [crop["frame"], crop["disagreement"], *wrong]
        rows += [sections.flat(crop, len(classes)), below]
        captions += ["", f"{crop['where']} {BELOW}"]
        said = crop["predictions"].items()
        shares = [f"{n}\nwrong: {sections.wrong_share(p, crop['label'])}" for n, p in said]
        pairs = zip(*rows[-2:], ["image", "truth", *shares], strict=True)
        figures = "".join(markup.figure([top, low], caption) for top, low, caption in pairs)
        parts += [markup.note(crop["where"]), f"<div class=strip>{figures}</div>"]
    heads = ["image", "truth", *samples[0]["predictions"]]
    key = visualize.legend(classes, sections.maps(crops)) | marks
    _save(folder / "differences.png", visualize.grid(rows, heads, captions, key))
    return parts


def _panels(histories: dict[str, list[dict]]) -> dict[str, dict]:
    """A line for each model, a panel for the loss and for each score of several evaluations."""
    panels = {
        "training loss": {
            n: visualize.smooth(sections.points(h, "loss")) for n, h in histories.items()
        }
    }
    for key in sections.CURVES:
        lines = {name: sections.points(h, key) for name, h in histories.items()}
        if any(len(line) > 1 for line in lines.values()):
            panels[sections.named(key)] = lines
    return panels


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, optimize=True)
