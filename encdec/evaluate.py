"""A whole split -> numbers, whatever the batch size and the devices: sums, or records by image.

Of several hosts each reads its share and runs alone; then they tell one another what they found.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int64

from encdec import hosts, masks, parallel
from encdec.arrays import IGNORE
from encdec.average_precision import Objects
from encdec.data.augment import prepare
from encdec.data.faults import Faults
from encdec.data.fit import BUCKET, bucket, magnification
from encdec.data.pipeline import checked, eval_batches, opened
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.geometry import geometry
from encdec.predict import predict_outputs
from encdec.tasks.segment import Segment
from encdec.tasks.task import Task
from encdec.train.step import eval_step

Sums = dict[str, Any]


@dataclass
class Seen:
    """What a page shows of an evaluation beside its scores.

    Attributes:
      confusion: pixels of true class i (row) taken for j (column); None of objects.
      images: the task's `image_by` of each image alone, in [0, 1], by the image's number; without
        those that have nothing to be scored.
    """

    confusion: Int64[np.ndarray, "k k"] | None = None
    images: dict[int, float] = field(default_factory=dict)

    def note(self, task: Task, number: int, image: Any) -> None:
        """Keeps the score of an image, of its row of `each` or of its record."""
        if np.isfinite(score := task.score_of(image)):
            self.images[number] = float(score)

    def close(self, total: Sums) -> None:
        """Joins what all hosts saw; `total` are the sums of all."""
        every = hosts.exchange({str(i): score for i, score in self.images.items()})
        joined = {int(i): score for part in every for i, score in part.items()}
        self.images = dict(sorted(joined.items()))
        table = total.get("confusion")
        self.confusion = table if table is not None and table.ndim == 2 else None


def evaluator(experiment: Experiment) -> parallel.Compiled:
    """`eval_step` over this host's devices; compiled once for each size of image."""

    def step(variables: Any, batch: Any) -> dict[str, jax.Array]:
        return eval_step(variables, prepare(batch), model=experiment.model, task=experiment.task)

    if experiment.driver == "pmap":
        return parallel.pmap(step, rest=0, donate=False, here=True)
    return parallel.jit(step, donate=False, here=True)


def evaluate(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    faults: Faults | None = None,
    seen: Seen | None = None,
) -> dict[str, float]:
    """Scores of the data's split, every image once; a short last batch is filled with nothing.

    Where a segmentation scores whole images too (`Segment.also`), where the net gives less than it
    sees, or sees resized (`Dataset.side`) or turned images (`Experiment.tta`), they are predicted
    one by one as `predict` does.

    Args:
      step: of `evaluator(experiment)`.
      faults: keeps the examples that were left out, since they cannot be used.
      seen: empty; keeps what a page shows.

    Raises:
      InputError: an example does not fit, on this host or on another; or none can be used.
    """
    faults = faults or Faults(experiment.data)
    model, task = experiment.model, experiment.task
    mine = hosts.share(len(opened(experiment.data, experiment.data.split, faults)))
    variables = parallel.on_this_host(variables)
    if not isinstance(task, Segment):
        every = records(experiment, variables, step, mine, faults)
        if seen:
            for number, record in every.items():
                seen.note(task, number, record)
        return task.scores([every[i] for i in sorted(every)])
    margin = geometry(model, (BUCKET, BUCKET)).margin
    single = task.also or experiment.data.side or experiment.tta or margin != (0, 0)
    with hosts.together():
        if single:
            total = added(by_image(experiment, variables, mine, faults, seen))
        else:
            total = added(by_batch(experiment, variables, step, mine, faults, seen))
    if not (total := added(hosts.exchange(total))):
        raise nothing(experiment)
    if seen:
        seen.close(total)
    return task.scores(total)


def nothing(experiment: Experiment) -> InputError:
    """No example of the split can be used."""
    return InputError(
        f"a split with examples that can be used is wanted; {experiment.data.split!r} has none: "
        "`encdec check` says why"
    )


def added(parts: Iterable[Sums]) -> Sums:
    """The sums of all parts; a host that had no image gives {}."""
    total: Sums = {}
    for sums in parts:
        total = jax.tree.map(np.add, total, sums) if total and sums else sums or total
    return total


def by_batch(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    chosen: tuple[int, ...],
    faults: Faults,
    seen: Seen | None,
) -> Iterator[Sums]:
    """The task's sums of each batch of the examples chosen, over this host's devices."""
    share = experiment.batch // jax.process_count()
    for batch in eval_batches(experiment.data, batch=share, chosen=chosen, faults=faults):
        sums = wide(step(variables, batch))
        images = sums.pop("images", ())
        for number, image in zip(batch["index"], images, strict=False) if seen else ():
            if number >= 0:
                seen.note(experiment.task, int(number), image)
        yield sums


def records(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    chosen: tuple[int, ...],
    faults: Faults,
) -> dict[int, Any]:
    """What the task keeps of the objects found and true in each image, by its number, of all hosts'
    choices."""
    with hosts.together():
        every = objects(experiment, variables, step, chosen, faults)
        mine = {str(i): experiment.task.record(found, truth) for i, found, truth in every}
    kept = {int(i): record for part in hosts.exchange(mine) for i, record in part.items()}
    if not kept:
        raise nothing(experiment)
    return kept


def objects(
    experiment: Experiment,
    variables: Any,
    step: parallel.Compiled,
    chosen: tuple[int, ...] | None = None,
    faults: Faults | None = None,
) -> Iterator[tuple[int, Objects, Objects]]:
    """(number, objects found, objects true) of all examples of the split, or of those chosen."""
    data, keys = experiment.data, experiment.task.keys
    share = experiment.batch // jax.process_count()
    for batch in eval_batches(data, batch=share, keys=keys, chosen=chosen, faults=faults):
        found = jax.device_get(step(variables, batch))
        for row, number in enumerate(batch["index"]):
            if number >= 0:
                own = ({name: x[row] for name, x in part.items()} for part in (found, batch))
                if "scale" in batch:  # without masks
                    yield int(number), *(resized(part, batch["scale"][row]) for part in own)
                else:
                    yield int(number), *with_masks(*(enlarged(part, data.shrink) for part in own))


def enlarged(objects: Objects, factor: int) -> Objects:
    """The objects in pixels of the image before it was shrunk."""
    powers = {"boxes": 1, "windows": 1, "areas": 2, "size": 1}
    return objects | {
        name: objects[name] * factor**power for name, power in powers.items() if name in objects
    }


def resized(objects: Objects, scale: Float32[np.ndarray, "2"]) -> Objects:
    """The objects in pixels of the image before rows and columns grew by `scale`."""
    factors = {"boxes": 1 / np.tile(scale, 2)[None], "areas": 1 / scale.prod(), "size": 1 / scale}
    objects = objects | {name: objects[name] * factors[name] for name in factors if name in objects}
    return objects | ({"size": objects["size"].round().astype(int)} if "size" in objects else {})


def with_masks(found: Objects, truth: Objects) -> tuple[Objects, Objects]:
    """Masks, where there are any, as large as the image: (n, h, w), true inside."""
    if "masks" not in found:
        return found, truth
    size = tuple(int(n) for n in truth["size"])
    instances = truth["instances"][: size[0], : size[1]]
    return (
        found | {"masks": masks.paste(found["masks"], found.get("windows", found["boxes"]), size)},
        truth | {"masks": masks.separate(instances, truth["ids"])},
    )


def by_image(
    experiment: Experiment,
    variables: Any,
    chosen: tuple[int, ...],
    faults: Faults,
    seen: Seen | None,
) -> Iterator[Sums]:
    """The task's sums of each image chosen, predicted at its own size."""
    data, task = experiment.data, experiment.task
    source, classes = opened(data, data.split, faults), len(data.classes)
    keys = ("label", "instances") if "objects" in task.also else ("label",)
    for i in chosen:
        try:
            example = checked(source, i, classes, keys)
        except InputError as error:
            faults.note(error)
            continue
        scales = (magnification(example["image"].shape[:2], data.side),)
        options = {"shrink": data.shrink, "scales": scales, "tta": experiment.tta}
        found = predict_outputs(experiment.model, variables, example["image"], **options)
        border = [(0, bucket(n) - n) for n in example["label"].shape]  # few sizes, few compiles
        label = np.pad(example["label"], border, constant_values=IGNORE)
        logits = np.pad(found["logits"], [*border, (0, 0)])
        sums = wide(_measure(task, logits[None], label[None]))
        if seen and sums["confusion"].ndim == 2:
            seen.note(task, i, sums["confusion"])
        yield sums | task.measure_image(np.asarray(task.probabilities(found["logits"])), example)


def wide(sums: Sums) -> Sums:
    """A device's int32 sums as int64 on the host."""
    return jax.tree.map(partial(np.asarray, dtype=np.int64), jax.device_get(sums))


@partial(jax.jit, static_argnums=0)
def _measure(task: Segment, logits: Any, labels: Any) -> Sums:
    batch = {"image": logits, "label": labels.astype(jnp.int32)}
    return task.measure({"logits": logits}, batch)
