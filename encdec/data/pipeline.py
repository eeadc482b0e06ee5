"""Examples to padded uint8 batches; batch t is a function of (seed, t) alone.

So the step number is the whole state of the data, and any number of hosts reads the same batches.
"""

import os
from collections.abc import Callable, Iterable, Iterator

import grain.python as grain
import numpy as np
from jaxtyping import Float32, Shaped

from encdec.arrays import IGNORE
from encdec.data.datasets import Dataset, Source
from encdec.data.faults import Faults, say
from encdec.data.fit import Example, Row, bucket, cropped, fitted, padded, shrunk, thinned
from encdec.errors import InputError

MOST_INSTANCES = 65_535  # of an image: what counts them takes memory for the greatest id
FOREVER = 2**40  # rows, more than any run reads
REPLACED = 1  # draws of what comes in an example's place; without it those of its window

Rows = dict[str, Shaped[np.ndarray, "b ..."]]


def train_batches(
    dataset: Dataset,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    keys: tuple[str, ...] = ("image", "label"),
    faults: Faults | None = None,
) -> Iterator[Rows]:
    """Endless batches of the split "train" from step `start` on, read ahead by threads.

    Every epoch holds each example once, in an order of its own; a batch may span two epochs.

    Args:
      batch: rows of the global batch B.
      shard: (p, n): process p of n gets rows p B/n to (p + 1) B/n of every global batch.
      keys: of "label", "instances", "boxes", "areas". Boxes (b, n, 4), n = `dataset.max_boxes`,
        bring "classes" int32, "crowd" bool (neither object nor background) and "box_mask" bool, all
        (b, n); with instances also "ids" int32, a box's value there, or 0. "areas" float32 (b, n)
        are those of the objects, of the box where the data set does not know it.
      faults: keeps what was skipped. In the place of an example that cannot be used comes one that
        is drawn from (seed, step, row) alone.

    Yields:
      Rows of `canvas` size with "size" int32 (b, 2), the rows and columns before padding, and
      "index" int32 (b,), the place in the global batch; with `dataset.border` also "weight" float32
      (b, h, w). Images are padded by repeating their edge, labels with 255, weights with 0.
    """
    process, processes = shard
    if batch % processes:
        raise InputError(
            f"A batch that {processes} processes share equally is wanted; {batch} came; "
            f"try --batch {batch + processes - batch % processes}"
        )
    local = batch // processes
    faults = faults or Faults(dataset)
    source, classes = opened(dataset, "train", faults), len(dataset.classes)
    most = dataset.max_boxes
    weights: dict[int, Float32[np.ndarray, "h w"]] = {}
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def read(number: int) -> Example:
        if dataset.border is None:
            return checked(source, number, classes, keys, most)
        example = checked(source, number, classes, (*keys, "label", "instances"), most)
        if number not in weights:  # made once, then kept
            weights[number] = dataset.border(example["label"], example["instances"])
        unasked = {"label", "instances"} - set(keys)
        if "instances" in unasked:
            unasked.add("ids")
        kept = {key: array for key, array in example.items() if key not in unasked}
        return kept | {"weight": weights[number]}

    def usable(step: int, place: int) -> Example:
        try:
            return read(order[step * batch + place])
        except InputError as error:
            faults.note(error)
        others = np.random.default_rng((seed, step, place, REPLACED)).permutation(len(source))
        return first(read, others.tolist(), faults)

    def row(i: int) -> Row:
        step, place = start + i // local, process * local + i % local
        example = shrunk(fitted(usable(step, place), dataset.side), dataset.shrink)
        for key in {"label", "instances", "weight"} & set(example):
            example[key] = thinned(example[key], dataset.shrink)
        example = cropped(example, dataset.canvas, np.random.default_rng((seed, step, place)))
        return padded(example, dataset.canvas, 1, most) | {"index": np.int32(place)}

    return iter(_read_ahead(row, FOREVER, 2 * local).batch(local))


def eval_batches(
    dataset: Dataset,
    *,
    batch: int,
    keys: tuple[str, ...] = ("image", "label"),
    chosen: tuple[int, ...] | None = None,
    faults: Faults | None = None,
) -> Iterator[Rows]:
    """Batches that hold every example of `dataset.split` once, at its own size.

    Images, after `shrink` or `side`, are padded at the bottom and right to multiples of 32 by
    repeating their edge, and those of one padded size are batched: few shapes, few compiles. Labels
    and instances stay `shrink` times as large, padded with 255 and 0. Boxes count pixels of the
    image.

    Args:
      chosen: numbers of the examples to read; all of them by default.
      faults: keeps what was skipped; such examples are in no batch.

    Yields:
      As `train_batches`, but "index" is the number of the example. Rows that fill up the last
      batch of each size have index -1, size 0 and label 255 everywhere.
    """
    faults = faults or Faults(dataset)
    source, classes = opened(dataset, dataset.split, faults), len(dataset.classes)
    most = dataset.max_boxes
    chosen = tuple(range(len(source))) if chosen is None else chosen

    def row(place: int) -> Row | None:
        i = chosen[place]
        try:
            example = fitted(checked(source, i, classes, keys, most), dataset.side)
            example = shrunk(example, dataset.shrink)
        except InputError as error:
            faults.note(error)
            return None
        size = tuple(bucket(n) for n in example["image"].shape[:2])
        return padded(example, size, dataset.shrink, most) | {"index": np.int32(i)}

    waiting: dict[tuple[int, ...], list[Row]] = {}
    for one in _read_ahead(row, len(chosen), 2 * batch):  # without those that are None
        rows = waiting.setdefault(one["image"].shape, [])
        rows.append(one)
        if len(rows) == batch:
            yield _stacked(waiting.pop(one["image"].shape))
    for rows in waiting.values():
        filler = {key: np.zeros_like(value) for key, value in rows[0].items()}
        filler |= {"index": np.int32(-1)}
        if "label" in filler:
            filler["label"] = np.full_like(filler["label"], IGNORE)
        yield _stacked(rows + [filler] * (batch - len(rows)))


def opened(dataset: Dataset, split: str, faults: Faults | None = None) -> Source:
    """The source of a split; it has what its data set needs, and no file lacks its partner.

    Says on stderr, once, how many boxes of the split have no area and are left out.
    """
    source, faults = dataset.source(split), faults or Faults(dataset)
    unpaired = getattr(source, "unpaired", ())
    if faults.skipping:
        for line in unpaired:
            faults.note(InputError(line))
    elif unpaired:
        more = f" (and {len(unpaired) - 1} more; `encdec check` names all)" * (len(unpaired) > 1)
        raise InputError(f"Every image wants its truth and all truth an image; {unpaired[0]}{more}")
    if not len(source):
        raise InputError(
            f"A split with images is wanted; {split!r} of {type(dataset).__name__} has none; "
            "check --data.root and --data.split"
        )
    bordered = split == "train" and dataset.border is not None
    if bordered and "instances" not in first(source.__getitem__, range(len(source)), faults):
        raise InputError(
            f"A border's weights want instances; {type(dataset).__name__} has none; "
            "say data.border:none, or use a data set that has them"
        )
    if dropped := len(getattr(source, "dropped", ())):
        left = f"{dropped} box(es) without area left out; `encdec check` names them"
        say(f"{type(dataset).__name__} {split}: {left}")
    return source


def first(read: Callable[[int], Example], numbers: Iterable[int], faults: Faults) -> Example:
    """The first of the examples that can be used.

    Raises InputError where there is none, or `faults` does.
    """
    for number in numbers:
        try:
            return read(number)
        except InputError as error:
            faults.note(error)
    raise InputError("A split with examples that can be used is wanted; none can: `encdec check`")


def checked(
    source: Source, i: int, classes: int, keys: tuple[str, ...], most: int | None = None
) -> Example:
    """Example i with just its image and `keys`, and what `keys` bring (see `train_batches`).

    Raises InputError naming what does not fit; more than `most` boxes do not.
    """
    example = source.read(i, keys) if hasattr(source, "read") else source[i]
    name = source.name(i) if hasattr(source, "name") else f"example {i}"
    boxes = ("boxes", "classes") if "boxes" in keys else ()
    wanted = tuple(dict.fromkeys(("image", *keys, *boxes)))
    if boxes and set(boxes) <= set(example):
        example = _with_objects(example, classes, keys, most, name)
        wanted += ("crowd", "ids") if "instances" in keys else ("crowd",)
    if missing := [key for key in wanted if key not in example]:
        raise InputError(
            f"{name}: the keys {', '.join(wanted)} are wanted; it lacks {', '.join(missing)}; "
            "use a data set that has them, or a task that does not need them"
        )
    example = {key: example[key] for key in wanted}
    size = example["image"].shape[:2]
    for key in {"label", "instances"} & set(example):
        if example[key].shape != size:
            turned = example[key].shape == size[::-1]
            raise InputError(
                f"{name}: image and {key} of one size are wanted; the image has "
                f"{size[0]}x{size[1]} pixels, the {key} {'x'.join(map(str, example[key].shape))}"
                f"{'; an orientation tag (EXIF) does not count: save the image turned' * turned}"
            )
    ids = example.get("instances", np.zeros(1, np.int32))
    if not 0 <= ids.min() <= ids.max() <= MOST_INSTANCES:
        raise InputError(
            f"{name}: instances from 0 to {MOST_INSTANCES} are wanted; {ids.min()} to {ids.max()} "
            "came; number them anew"
        )
    if "label" in example:
        ids = np.flatnonzero(np.bincount(example["label"].ravel(), minlength=IGNORE + 1)[:IGNORE])
        if len(ids) and ids[-1] >= classes:
            raise InputError(
                f"{name}: class ids below {classes} (or 255, ignore) are wanted; {ids[-1]} came; "
                "correct the mask or the list of classes"
            )
    return example


def _with_objects(
    example: Example, classes: int, keys: tuple[str, ...], most: int | None, name: str
) -> Example:
    """The example with what it may leave out of its boxes' arrays."""
    boxes, ids = example["boxes"], example["classes"]
    if most is not None and len(boxes) > most:
        raise InputError(
            f"{name}: at most {most} boxes an image are wanted; {len(boxes)} came; "
            f"say --data.max-boxes {len(boxes)} or more"
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        raise InputError(
            f"{name}: classes of boxes from 0 to {classes - 1} are wanted; {ids.min()} to "
            f"{ids.max()} came; correct them or the list of classes"
        )
    given = {"crowd": np.zeros(len(boxes), bool)}
    if "instances" in keys:
        given["ids"] = np.arange(1, len(boxes) + 1, dtype=np.int32)
    if "areas" in keys:
        given["areas"] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return given | example


def _read_ahead(row: Callable[[int], Row | None], rows: int, ahead: int) -> grain.IterDataset:
    """Rows 0, 1, …, made by threads, in order."""
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead + threads)
    return grain.MapDataset.range(rows).map(row).to_iter_dataset(options)


def _stacked(rows: list[Row]) -> Rows:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
