"""Sections of the pages of one run and of several: curves, classes, confusions, images, settings.

Each is HTML that `encdec.page` and `encdec.page_comparison` put one below the other. A sample is
one of `encdec.samples`, with "about", a line on it; label maps are (H, W), whole multiples of the
image's (h, w).
"""

import math
from collections.abc import Iterable
from html import escape

import numpy as np
from jaxtyping import Integer

from encdec import markup, visualize, visualize_boxes
from encdec.arrays import IGNORE
from encdec.errors import InputError
from encdec.samples import Sample
from encdec.table import show

AREAS = {"s": "small", "m": "medium", "l": "large"}
SCORES = {
    **{"pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"},
    **{"mean_iou": "mean IoU", "frequency_weighted_iou": "frequency-weighted IoU"},
    **{"boundary_f": "boundary F", "v_rand": "V rand", "v_info": "V info", "auc": "ROC AUC"},
    **{"f1": "F1", "object_f1": "object F1", "object_ap": "object AP"},
    **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"} | {f"ap_{a}": f"AP {AREAS[a]}" for a in AREAS},
    **{f"ar{n}": f"AR{n}" for n in (1, 10, 100, 1000)},
    **{f"ar_{a}": f"AR {AREAS[a]}" for a in AREAS},
}
"""What scores are called; others keep their names."""

KINDS = {"iou": "IoU", "ap50": "AP at IoU 0.5"}
CURVES = ("mean_iou", "pixel_accuracy", "boundary_f", "ap", "ap50", "ar100", "ar1000")
NUMBERS = ("step", "rate", "images_per_s", "waiting", "memory_mib", "skipped")
"""Numbers of a training line that are no losses."""

MOST = 24
"""Classes of a confusion matrix that is shown whole; of more the commonest confusions are."""


def named(score: str) -> str:
    """What a score is called."""
    mask, name = ("mask ", score[5:]) if score.startswith("mask_") else ("", score)
    return mask + SCORES.get(name, name)


def colours_of(classes: tuple[str, ...], kind: str) -> dict[str, visualize.Colour]:
    """Colour by name of the class, in the pictures of label maps or of objects."""
    if kind == "iou":
        return dict(zip(classes, map(tuple, visualize.palette(len(classes)).tolist()), strict=True))
    return visualize_boxes.colours(classes)


def by_class(scores: dict[str, dict[str, float]], classes: tuple[str, ...], kind: str) -> list[str]:
    """A table of classes, the worst first: a bar for one model, a column for each of several.

    Args:
      scores: by model and class, in [0, 1]; NaN for a class that neither truth nor prediction has.
      kind: of the score, one of `KINDS`.
    """
    names = list(dict.fromkeys(name for own in scores.values() for name in own))
    if not names:
        return []
    colours, lines = colours_of(classes, kind), []
    heads = "".join(f"<th class=n>{escape(model)}</th>" for model in scores)
    for name in sorted(names, key=lambda name: _mean(own.get(name) for own in scores.values())):
        chip = markup.chip(colours[name]) if name in colours else ""
        values = [own.get(name, math.nan) for own in scores.values()]
        best = max(filter(math.isfinite, values), default=math.nan)
        cells = ""
        for value in values:
            text = show("mean IoU", value) if math.isfinite(value) else "absent"
            marked = value == best and len({*values}) > 1
            cells += f"<td class=n>{f'<b>{text}</b>' if marked else text}</td>"
        if len(values) == 1:
            bar = f'<i class=bar style="width:{100 * best:.1f}%"></i>' if best == best else ""
            cells += f"<td class=wide>{bar}</td>"
        lines.append(f"<tr><th>{chip}{escape(name)}</th>{cells}</tr>")
    if len(scores) == 1:
        table = f"<table class=classes>{''.join(lines)}</table>"
    else:
        head = f"<tr><th>class</th>{heads}</tr>"
        table = f"<div class=scroll><table>{head}{''.join(lines)}</table></div>"
    return [f"<h2>{KINDS[kind]} by class, worst first</h2>", table]


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.inf


def confusion(table: Integer[np.ndarray, "k k"], classes: tuple[str, ...]) -> str:
    """A matrix, rows true and columns predicted, in % of the row; of more than `MOST` classes a
    list of the commonest confusions."""
    share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
    if len(classes) > MOST:
        wrong = share * (1 - np.eye(len(classes)))
        worst = np.argsort(-wrong, axis=None, kind="stable")[:MOST]
        pairs = [divmod(int(place), len(classes)) for place in worst]
        rows: list[dict[str, object]] = [
            {"true": classes[i], "taken for": classes[j], "% of the true": float(share[i, j])}
            for i, j in pairs
            if wrong[i, j] > 0
        ]
        return markup.table(rows, ["true", "taken for", "% of the true"]) if rows else ""
    return markup.matrix(share, [*colours_of(classes, "iou").items()])


CONFUSED = "Of the pixels of each true class (row), how many in a hundred went to each class."


def strip(sample: Sample, classes: tuple[str, ...]) -> str:
    """The image, the truth, and of each model what it says and where that is wrong.

    Of several models what is wrong stands below what each says, of one beside it.
    """
    image, alone = sample["image"], len(sample["predictions"]) == 1
    about = markup.note(sample["about"]) if sample.get("about") else ""
    if "truth" in sample:
        figures = markup.figure(_boxes(image, sample["truth"], classes), "truth")
    else:
        truth = visualize.overlay(image, sample["label"], len(classes))
        figures = markup.figure(image, "image") + markup.figure(truth, "truth")
    for name, said in sample["predictions"].items():
        if "truth" in sample:
            wrong, remark = visualize_boxes.wrong(said, sample["truth"])
            marks = visualize_boxes.WRONG
            pictures = [_boxes(image, said, classes), _boxes(image, wrong, tuple(marks), marks)]
        else:
            pictures = [visualize.overlay(image, said, len(classes))]
            pictures.append(visualize.errors(said, sample["label"]))
            remark = f"wrong: {wrong_share(said, sample['label'])}"
        if alone:
            figures += markup.figure(pictures[0], name) + markup.figure(pictures[1], remark)
        else:
            figures += markup.figure(pictures, f"{name}\n{remark}")
    return f"{about}<div class=strip>{figures}</div>"


def _boxes(
    image: np.ndarray, objects: dict, classes: tuple[str, ...], marks: dict | None = None
) -> np.ndarray:
    return visualize_boxes.draw(image, objects, classes, width=640, shades=marks)


def sheet(
    samples: list[Sample], classes: tuple[str, ...], remarks: dict[str, str] | None = None
) -> visualize.Picture:
    """One picture of all samples, a row each: the truth and what each model says.

    remarks: by model, below its name; of label maps.
    """
    if "truth" in samples[0]:
        return visualize_boxes.sheet(samples, classes)
    heads = [f"{n}\n{remarks[n]}" if n in (remarks or {}) else n for n in samples[0]["predictions"]]
    strips, key = [flat(s, len(classes)) for s in samples], visualize.legend(classes, maps(samples))
    return visualize.grid(strips, ["image", "truth", *heads], [""] * len(strips), key)


def flat(sample: Sample, k: int) -> list[visualize.Picture]:
    """The image, and the label maps in their colours."""
    labels = (sample["label"], *sample["predictions"].values())
    return [sample["image"], *(visualize.colourise(m, k) for m in labels)]


def key_of(samples: list[Sample], classes: tuple[str, ...]) -> str:
    """What the colours of the pictures mean."""
    if "truth" in samples[0]:
        return markup.key(visualize_boxes.colours(classes) | visualize_boxes.WRONG)
    marks = {"wrong": visualize.RED, "right": visualize.DIM}
    return markup.key(visualize.legend(classes, maps(samples)) | marks)


def wrong_share(predicted: np.ndarray, labels: np.ndarray) -> str:
    """Of the pixels that count."""
    counted = labels != IGNORE
    return f"{100 * (predicted != labels)[counted].mean():.1f} %" if counted.any() else "–"


def maps(samples: list[Sample]) -> list[np.ndarray]:
    """All label maps of the samples."""
    return [m for s in samples for m in (s["label"], *s["predictions"].values())]


def panels(history: list[dict]) -> dict[str, dict]:
    """Curves of one run: its losses, its scores (of two evaluations or more), its rate."""
    losses = dict.fromkeys(
        name
        for line in history
        for name, value in line.items()
        if name not in NUMBERS and not isinstance(value, dict)
    )
    parts = [name for name in losses if name != "loss"] if len(losses) > 2 else []
    drawn = {name: visualize.smooth(points(history, name)) for name in ("loss", *parts)}
    scores = {named(name): points(history, name) for name in CURVES}
    scores = {name: line for name, line in scores.items() if len(line) > 1}
    every = {"loss": drawn, "scores": scores, "learning rate": {"rate": points(history, "rate")}}
    return {quantity: lines for quantity, lines in every.items() if any(lines.values())}


def points(history: list[dict], key: str) -> list[visualize.Point]:
    """(step, value) of the lines that have it, itself or among the scores of a split."""
    found = []
    for line in history:
        for numbers in (line, *(part for part in line.values() if isinstance(part, dict))):
            if isinstance(value := numbers.get(key), int | float):
                found.append((float(line["step"]), float(value)))
    return found


def check(samples: list[Sample]) -> None:
    """Raises InputError unless all models predicted every sample at its label's size."""
    for i, sample in enumerate(samples):
        if list(sample["predictions"]) != (names := list(samples[0]["predictions"])):
            raise InputError(
                f"every sample is predicted by the same models, {names}; got "
                f"{list(sample['predictions'])} for sample {i}; predict it with all of them"
            )
        for name, labels in sample["predictions"].items() if "label" in sample else ():
            if labels.shape != sample["label"].shape:
                raise InputError(
                    f"a prediction is as large as its label, {sample['label'].shape}; got "
                    f"{labels.shape} by {name} for sample {i}; resize it to the label first"
                )
