"""Report pages: one HTML file that needs nothing else, and the pictures of the README beside it.

Rows are those of `encdec.table`. A sample is {"image": uint8 (h, w, 3), "label": uint8 (H, W),
"predictions": {name: uint8 (H, W)}}, H and W whole multiples of h and w.
"""

import math
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from encdec import markup, visualize
from encdec.arrays import IGNORE
from encdec.errors import InputError
from encdec.table import BEST, best_of, columns_of, show

SCORES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F"}

BELOW = "Below: where it is, where pairs differ, what is wrong."
CLOSE = (
    "Enlarged where the models disagree most. Below each crop: where in the image it is; how many "
    "pairs of models differ, brighter for more; and the errors of each model."
)


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
    parts += ["<h2>Training</h2>", markup.charts(panels)]
    parts += _compared(folder, samples, classes, scores) + _differences(folder, samples, classes)
    return _write(folder, title, [*parts, "<h2>Facts</h2>", markup.facts(facts)])


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
    parts = [f"<div class=tiles>{tiles}</div>", "<h2>Training</h2>"]
    parts.append(markup.charts(_panels(history)))
    ranked = sorted(per_class.items(), key=lambda c: c[1] if math.isfinite(c[1]) else math.inf)
    lines = ""
    for name, iou in ranked:
        chip = markup.chip(colours[classes.index(name)]) if name in classes else ""
        known = math.isfinite(iou)
        bar = f'<i class=bar style="width:{100 * iou:.1f}%"></i>' if known else ""
        value = show("mean IoU", iou) if known else "absent"
        lines += f"<tr><th>{chip}{escape(name)}</th><td>{value}</td><td class=wide>{bar}</td></tr>"
    parts += ["<h2>IoU by class, worst first</h2>", f"<table class=classes>{lines}</table>"]
    if samples:
        parts += ["<h2>Samples</h2>", markup.key(visualize.legend(classes, _maps(samples)))]
    for sample in samples:
        image, label = sample["image"], sample["label"]
        figures = markup.figure(image, "image")
        figures += markup.figure(visualize.overlay(image, label, k), "truth")
        for name, labels in sample["predictions"].items():
            figures += markup.figure(visualize.overlay(image, labels, k), name)
            wrong = f"wrong: {_share(labels, label)}"
            figures += markup.figure(visualize.errors(labels, label), wrong)
        parts.append(f"<div class=strip>{figures}</div>")
    return _write(folder, title, [*parts, "<h2>Facts</h2>", markup.facts(facts)])


def _summary(rows: list[dict[str, object]]) -> str:
    said = []
    for column, words in {
        "mean IoU": "Highest mean IoU",
        "boundary F": "Highest boundary F",
    }.items():
        if column in (best := best_of(rows)):
            row = next(row for row in rows if row.get(column) == best[column])
            name = escape(str(next(iter(row.values()))))
            value = show(column, best[column]).replace(" ", "\u00a0")
            said.append(f"{words}: <b>{name}</b> ({value}).")
    return "One encoder, the same data and budget; only the decoder differs. " + " ".join(said)


def _tables(rows: list[dict[str, object]]) -> list[str]:
    """What was measured, then what each model is: two tables, since one would be too wide."""
    first, *columns = columns_of(rows)
    result = [column for column in columns if column in BEST]
    design = [column for column in columns if column not in BEST]
    parts = []
    if result:
        note = "Best value of each column in bold."
        if any(isinstance(v, tuple) for row in rows for v in row.values()):
            note += " Mean ± spread over seeds."
        parts += ["<h2>What each decoder reaches</h2>", markup.table(rows, [first, *result])]
        parts.append(markup.note(note))
    if design:
        parts += ["<h2>How each decodes</h2>", markup.table(rows, [first, *design])]
    return parts


def _compared(folder: Path, samples: list[dict], classes: tuple, scores: dict) -> list[str]:
    """Writes comparison.png of the first four samples; returns the page's section."""
    names, key = list(samples[0]["predictions"]), visualize.legend(classes, _maps(samples))
    heads = [f"{name}\nmean IoU {scores[name]}" if name in scores else name for name in names]
    strips = [_strip(sample, len(classes)) for sample in samples]
    sheet = visualize.grid(strips[:4], ["image", "truth", *heads], [""] * len(strips[:4]), key)
    _save(folder / "comparison.png", sheet)
    note = markup.note("Below each name: the share of counted pixels that are wrong.")
    pictures = [_pictures(s, strip) for s, strip in zip(samples[:8], strips, strict=False)]
    return ["<h2>The same images, segmented by all</h2>", note, markup.key(key), *pictures]


def _differences(folder: Path, samples: list[dict], classes: tuple) -> list[str]:
    """Writes differences.png; returns the page's section."""
    crops = visualize.differences(samples, most=3)
    rows, captions = [], []
    marks = {"right": visualize.DIM, "wrong": visualize.RED}
    parts = ["<h2>Where they differ most</h2>", markup.note(CLOSE), markup.key(marks)]
    for crop in crops:
        wrong = [visualize.errors(p, crop["label"]) for p in crop["predictions"].values()]
        below = [crop["frame"], crop["disagreement"], *wrong]
        rows += [_strip(crop, len(classes)), below]
        captions += ["", f"{crop['where']} {BELOW}"]
        stacked = [_stack(*pair) for pair in zip(*rows[-2:], strict=True)]
        parts += [_pictures(crop, stacked), markup.note(crop["where"])]
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


def _write(folder: Path, title: str, parts: list[str]) -> Path:
    path = folder / "report.html"
    path.write_text(markup.document(title, parts), encoding="utf-8")
    return path


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, optimize=True)


def _pictures(sample: dict, strip: list[np.ndarray]) -> str:
    shares = [f"{n}\n{_share(p, sample['label'])}" for n, p in sample["predictions"].items()]
    captions = ["image", "truth", *shares]
    figures = [markup.figure(p, caption) for p, caption in zip(strip, captions, strict=True)]
    return f"<div class=strip>{''.join(figures)}</div>"
