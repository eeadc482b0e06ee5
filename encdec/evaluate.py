"""A whole split -> numbers: sums, so that batch size and devices do not matter."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from encdec import parallel
from encdec.arrays import IGNORE
from encdec.data.augment import prepare
from encdec.data.fit import BUCKET, bucket
from encdec.data.pipeline import checked, eval_batches, opened
from encdec.experiment import Experiment
from encdec.geometry import geometry
from encdec.predict import predict, predict_outputs
from encdec.tasks.segment import Segment
from encdec.train.step import eval_step

Sums = dict[str, Any]


def evaluator(experiment: Experiment) -> parallel.Compiled:
    """`eval_step` over all devices; compiled once for each size of image."""

    def step(variables: Any, batch: Any) -> dict[str, jax.Array]:
        return eval_step(variables, prepare(batch), model=experiment.model, task=experiment.task)

    if experiment.driver == "pmap":
        return parallel.pmap(step, rest=0, donate=False)
    return parallel.jit(step, donate=False)


def evaluate(experiment: Experiment, variables: Any, step: parallel.Compiled) -> dict[str, float]:
    """Scores of the data's split, every image once; a short last batch is filled with nothing.

    Where the task scores whole images too (`Segment.also`), or the net gives less than it sees,
    images are predicted one by one, tiled, as `predict` does.

    Args:
      step: of `evaluator(experiment)`.
    """
    model, task = experiment.model, experiment.task
    single = task.also or geometry(model, (BUCKET, BUCKET)).margin != (0, 0)
    parts = by_image(experiment, variables) if single else by_batch(experiment, variables, step)
    total: Sums | None = None
    for sums in parts:
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return task.scores(total)


def by_batch(experiment: Experiment, variables: Any, step: parallel.Compiled) -> Iterator[Sums]:
    """The task's sums of each batch, over all devices."""
    share = experiment.batch // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    for batch in eval_batches(experiment.data, batch=experiment.batch):
        yield wide(step(variables, jax.tree.map(lambda x: x[rows], batch)))


def by_image(experiment: Experiment, variables: Any) -> Iterator[Sums]:
    """The task's sums of each image, predicted at its own size."""
    data, task = experiment.data, experiment.task
    source, classes = opened(data, data.split), len(data.classes)
    keys = ("label", "instances") if "objects" in task.also else ("label",)
    for i in range(len(source)):
        example = checked(source, i, classes, keys)
        found = predict_outputs(experiment.model, variables, example["image"], shrink=data.shrink)
        border = [(0, bucket(n) - n) for n in example["label"].shape]  # few sizes, few compiles
        label = np.pad(example["label"], border, constant_values=IGNORE)
        logits = np.pad(found["logits"], [*border, (0, 0)])
        yield wide(_measure(task, logits[None], label[None])) | task.measure_image(
            task.probabilities(found["logits"]), example
        )


def wide(sums: Sums) -> Sums:
    """A device's int32 sums as int64 on the host."""
    return jax.tree.map(partial(np.asarray, dtype=np.int64), jax.device_get(sums))


@partial(jax.jit, static_argnums=0)
def _measure(task: Segment, logits: Any, labels: Any) -> Sums:
    batch = {"image": logits, "label": labels.astype(jnp.int32)}
    return task.measure({"logits": logits}, batch)


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
