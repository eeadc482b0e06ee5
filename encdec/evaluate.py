"""A whole split -> numbers: integer sums, so that batch size and devices do not matter."""

from functools import partial
from typing import Any

import jax
import numpy as np

from encdec import parallel
from encdec.data.augment import prepare
from encdec.data.pipeline import eval_batches
from encdec.experiment import Experiment
from encdec.predict import predict
from encdec.train.step import eval_step


def evaluator(experiment: Experiment) -> parallel.Compiled:
    """`eval_step` over all devices; compiled once for each size of image."""

    def step(variables: Any, batch: Any) -> dict[str, jax.Array]:
        return eval_step(variables, prepare(batch), model=experiment.model, task=experiment.task)

    if experiment.driver == "pmap":
        return parallel.pmap(step, rest=0, donate=False)
    return parallel.jit(step, donate=False)


def evaluate(experiment: Experiment, variables: Any, step: parallel.Compiled) -> dict[str, float]:
    """Scores of the data's split, every image once; a short last batch is filled with nothing.

    Args:
      step: of `evaluator(experiment)`.
    """
    share = experiment.batch // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    total: dict[str, np.ndarray] | None = None
    for batch in eval_batches(experiment.data, batch=experiment.batch):
        local = jax.tree.map(lambda x: x[rows], batch)
        sums = jax.tree.map(
            partial(np.asarray, dtype=np.int64), jax.device_get(step(variables, local))
        )
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return experiment.task.scores(total)


def samples(
    experiment: Experiment, variables: Any, number: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(image, label, predicted label) of examples spread evenly over the split."""
    data, chosen = experiment.data, []
    source = data.source(data.split)
    for i in np.linspace(0, len(source) - 1, min(number, len(source))).round().astype(int):
        example = source[int(i)]
        labels = predict(experiment.model, variables, example["image"], shrink=data.shrink)
        chosen.append((example["image"], example["label"], labels.astype(np.uint8)))
    return chosen
