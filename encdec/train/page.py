"""The page of a run that has ended, and what it was made of: evaluation.json."""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from encdec import page, parallel, sections
from encdec.data.faults import Faults
from encdec.errors import InputError
from encdec.evaluate import Seen
from encdec.experiment import Experiment, title
from encdec.report import finite, history
from encdec.samples import Sample, ranked, samples, spread
from encdec.sections import named
from encdec.table import show
from encdec.train.folder import facts, settings
from encdec.visualize import Picture


@dataclass(frozen=True)
class Evaluation:
    """What a run's last evaluation gave; see `evaluate.Seen`."""

    scores: dict[str, float]
    confusion: Int64[np.ndarray, "k k"] | None
    images: dict[int, float]


def write_page(
    experiment: Experiment,
    folder: Path,
    variables: Any,
    scores: dict[str, float],
    step: parallel.Compiled,
    faults: Faults,
    seen: Seen,
) -> None:
    """report.html and evaluation.json of the run."""
    save(folder, Evaluation(scores, seen.confusion, seen.images))
    kind, data = experiment.task.by_class, experiment.data
    words = ranked(seen.images)
    chosen = tuple(words) or spread(6, len(data.source(data.split)))
    shown = samples(experiment, variables, step, chosen, faults)
    lines = history(folder)
    page.write_run(
        folder,
        title=title(folder),
        history=lines,
        scores={name: value for name, value in scores.items() if "/" not in name},
        kind=kind,
        per_class=by_class(experiment, scores),
        confusion=seen.confusion,
        samples=[about(sample, words, seen.images, experiment) for sample in shown],
        classes=names_of(experiment),
        facts=speed(lines) | facts(folder) | faults.facts(),
        settings=settings(folder),
    )


def predicted(
    experiment: Experiment, variables: Any, step: parallel.Compiled, faults: Faults
) -> dict[str, Picture]:
    """Some images of the split, the same ones every time, with truth and prediction: for logs."""
    data, classes = experiment.data, names_of(experiment)
    chosen = spread(experiment.pictures, len(data.source(data.split)))
    shown = samples(experiment, variables, step, chosen, faults)
    return {f"{data.split}/image_{one['number']}": sections.sheet([one], classes) for one in shown}


def by_class(experiment: Experiment, scores: dict[str, float]) -> dict[str, float]:
    """The task's score of each class, by name."""
    kind = experiment.task.by_class
    every = {name: scores.get(f"{kind}/{i}") for i, name in enumerate(names_of(experiment))}
    return {name: score for name, score in every.items() if score is not None}


def names_of(experiment: Experiment) -> tuple[str, ...]:
    """Of the task's classes."""
    return experiment.task.names(experiment.data.classes)


def about(
    sample: Sample, words: dict[int, str], images: dict[int, float], experiment: Experiment
) -> Sample:
    """The sample with a line on which it is."""
    number, score = sample["number"], named(experiment.task.image_by)
    line = f"Image {number} of {experiment.data.split}"
    if sample["name"]:
        line = f"{line} ({sample['name']})"
    if number in words:
        value = show(score, images[number])
        line = f"{words[number].capitalize()}: {line[0].lower()}{line[1:]}, {score} {value}"
    return sample | {"about": f"{line}."}


def speed(lines: list[dict[str, Any]]) -> dict[str, str]:
    """How fast the run was, by the median of its lines, and what a step held."""
    speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
    memory = max((line.get("memory_mib", 0.0) for line in lines), default=0.0)
    said = [f"{statistics.median(speeds):.1f} images/s"] if speeds else []
    said += [f"{memory:,.0f} MiB in a step"] if memory else []
    return {"training": ", ".join(said)} if said else {}


def save(folder: Path, found: Evaluation) -> None:
    """Writes evaluation.json.

    Raises:
      InputError: it cannot be written.
    """
    table = None if found.confusion is None else found.confusion.tolist()
    images = {str(i): score for i, score in sorted(found.images.items())}
    kept = {"scores": finite(found.scores), "confusion": table, "images": images}
    path = folder / "evaluation.json"
    try:
        path.write_text(json.dumps(kept, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"{path} could not be written: {error.strerror}; make room") from error


def saved(folder: Path) -> Evaluation | None:
    """What `save` wrote; None where the run has not ended, or the file is not whole."""
    try:
        kept = json.loads((folder / "evaluation.json").read_text("utf-8"))
        scores = {
            str(name): math.nan if value is None else float(value)
            for name, value in kept["scores"].items()
        }
        images = {int(i): float(score) for i, score in kept["images"].items()}
        table = kept["confusion"]
        table = None if table is None else np.array(table, np.int64)
        if table is not None and (table.ndim != 2 or table.shape[0] != table.shape[1]):
            return None
        return Evaluation(scores, table, images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
