"""Some images of a split with what is true in them and what a model says: for pages and logs."""

import os
from typing import Any

import numpy as np

from encdec import parallel
from encdec.data.datasets import Source
from encdec.data.faults import Faults
from encdec.data.fit import magnification
from encdec.errors import InputError
from encdec.evaluate import objects
from encdec.experiment import Experiment
from encdec.predict import predict
from encdec.tasks.segment import Segment

Sample = dict[str, Any]
"""As `encdec.page` shows them: "number" in the split; "name" of its file, if any; "image" uint8
(h, w, 3); "label", the true label map, or "truth", the true objects; "predictions", the like of
them by name of the model."""


def spread(number: int, count: int) -> tuple[int, ...]:
    """At most `number` of the numbers below `count`, evenly, the first and the last among them."""
    return tuple(int(i) for i in np.linspace(0, count - 1, min(number, count)).round())


def ranked(images: dict[int, float], each: int = 2) -> dict[int, str]:
    """The `each` worst, median and best images by their score, the worst first, and which it is.

    Of fewer images all, every one once.
    """
    order = sorted(images, key=lambda i: (images[i], i))
    middle = max(0, (len(order) - each) // 2)
    best = order[-each:][::-1]
    groups = {"worst": order[:each], "median": order[middle : middle + each], "best": best}
    chosen: dict[int, str] = {}
    for word, group in groups.items():
        for number in group:
            chosen.setdefault(number, word)
    return chosen


def file_name(source: Source, i: int) -> str:
    """Of example i, without its folders; nothing if it is no file of its own."""
    name = source.name(i) if hasattr(source, "name") else ""
    return os.path.basename(name) if os.path.isfile(name) else ""


def samples(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    chosen: tuple[int, ...],
    faults: Faults | None = None,
    name: str = "predicted",
) -> list[Sample]:
    """The examples of these numbers, in their order; those that cannot be used are left out.

    Args:
      step: of `evaluator(experiment)`.
      name: of the model, in "predictions".
    """
    data = experiment.data
    faults, variables = faults or Faults(data), parallel.on_this_host(variables)
    if not isinstance(experiment.task, Segment):
        return _objects(experiment, variables, step, chosen, faults, name)
    source, shown = data.source(data.split), []
    for i in chosen:
        try:
            example = source[i]
        except InputError as error:
            faults.note(error)
            continue
        scales = (magnification(example["image"].shape[:2], data.side),)
        options = {"shrink": data.shrink, "scales": scales, "tta": experiment.tta}
        labels = predict(experiment.model, variables, example["image"], **options)
        sample = {"number": i, "name": file_name(source, i)}
        sample |= {"image": example["image"], "label": example["label"]}
        shown.append(sample | {"predictions": {name: labels.astype(np.uint8)}})
    return shown


def _objects(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    chosen: tuple[int, ...],
    faults: Faults,
    name: str,
) -> list[Sample]:
    data = experiment.data
    several = experiment.task.names(data.classes) == data.classes
    source, shown = data.source(data.split), {}
    for i, found, truth in objects(experiment, variables, step, chosen, faults):
        drawn = found["scores"] >= 0.5  # a thousand masks as large as the image take long
        found = {key: values[drawn] for key, values in found.items()}
        truth["classes"] = truth["classes"] * several
        sample = {"number": i, "name": file_name(source, i)}
        sample |= {"image": source[i]["image"], "truth": truth}
        shown[i] = sample | {"predictions": {name: found}}
    return [shown[i] for i in chosen if i in shown]
