"""Examples to padded uint8 batches; batch t is a function of (seed, t) alone.

So the step number is the whole state of the data, and any number of hosts reads the same batches.
"""

import os
from collections.abc import Callable, Iterator

import grain.python as grain
import numpy as np
from jaxtyping import Float32, Shaped

from encdec.arrays import IGNORE
from encdec.data.datasets import Dataset, Source
from encdec.data.fit import Example, Row, bucket, cropped, padded, shrunk, thinned
from encdec.errors import InputError

FOREVER = 2**40  # rows, more than any run reads

Rows = dict[str, Shaped[np.ndarray, "b ..."]]


def train_batches(
    dataset: Dataset,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    keys: tuple[str, ...] = ("image", "label"),
) -> Iterator[Rows]:
    """Endless batches of the split "train" from step `start` on, read ahead by threads.

    Every epoch holds each example once, in an order of its own; a batch may span two epochs.

    Args:
      batch: rows of the global batch B.
      shard: (p, n): process p of n gets rows p B/n to (p + 1) B/n of every global batch.
      keys: of "label", "instances", "boxes" (which brings "classes" and "box_mask").

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
    source, classes = opened(dataset, "train"), len(dataset.classes)
    weights: dict[int, Float32[np.ndarray, "h w"]] = {}
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def read(number: int) -> Example:
        if dataset.border is None:
            return checked(source, number, classes, keys)
        example = checked(source, number, classes, (*keys, "label", "instances"))
        if number not in weights:  # made once, then kept
            weights[number] = dataset.border(example["label"], example["instances"])
        unasked = {"label", "instances"} - set(keys)
        kept = {key: array for key, array in example.items() if key not in unasked}
        return kept | {"weight": weights[number]}

    def row(i: int) -> Row:
        step, place = start + i // local, process * local + i % local
        example = shrunk(read(order[step * batch + place]), dataset.shrink)
        for key in {"label", "instances", "weight"} & set(example):
            example[key] = thinned(example[key], dataset.shrink)
        example = cropped(example, dataset.canvas, np.random.default_rng((seed, step, place)))
        return padded(example, dataset.canvas, 1) | {"index": np.int32(place)}

    return iter(_read_ahead(row, FOREVER, 2 * local).batch(local))


def eval_batches(
    dataset: Dataset, *, batch: int, keys: tuple[str, ...] = ("image", "label")
) -> Iterator[Rows]:
    """Batches that hold every example of `dataset.split` once, at its own size.

    Images, after `shrink`, are padded at the bottom and right to multiples of 32 by repeating
    their edge, and those of one padded size are batched: few shapes, few compiles. Labels and
    instances stay `shrink` times as large, padded with 255 and 0. Boxes count pixels of the image.

    Yields:
      As `train_batches`, but "index" is the number of the example. Rows that fill up the last
      batch of each size have index -1, size 0 and label 255 everywhere.
    """
    source, classes = opened(dataset, dataset.split), len(dataset.classes)

    def row(i: int) -> Row:
        example = shrunk(checked(source, i, classes, keys), dataset.shrink)
        size = tuple(bucket(n) for n in example["image"].shape[:2])
        return padded(example, size, dataset.shrink) | {"index": np.int32(i)}

    waiting: dict[tuple[int, ...], list[Row]] = {}
    for one in _read_ahead(row, len(source), 2 * batch):
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


def opened(dataset: Dataset, split: str) -> Source:
    """The source of a split; it has what its data set needs, and no file lacks its partner."""
    source = dataset.source(split)
    if unpaired := getattr(source, "unpaired", ()):
        more = f" (and {len(unpaired) - 1} more; `encdec check` names all)" * (len(unpaired) > 1)
        raise InputError(f"Every image wants a mask and every mask an image; {unpaired[0]}{more}")
    if not len(source):
        raise InputError(
            f"A split with images is wanted; {split!r} of {type(dataset).__name__} has none; "
            "check --data.root and --data.split"
        )
    if split == "train" and dataset.border is not None and "instances" not in source[0]:
        raise InputError(
            f"A border's weights want instances; {type(dataset).__name__} has none; "
            "say data.border:none, or use a data set that has them"
        )
    return source


def checked(source: Source, i: int, classes: int, keys: tuple[str, ...]) -> Example:
    """Example i with just its image and `keys`; raises InputError naming what does not fit."""
    example = source[i]
    name = source.name(i) if hasattr(source, "name") else f"example {i}"
    boxes = ("boxes", "classes") if "boxes" in keys else ()
    wanted = tuple(dict.fromkeys(("image", *keys, *boxes)))
    if missing := [key for key in wanted if key not in example]:
        raise InputError(
            f"{name}: the keys {', '.join(wanted)} are wanted; it lacks {', '.join(missing)}; "
            "use a data set that has them, or a task that does not need them"
        )
    size = example["image"].shape[:2]
    for key in {"label", "instances"} & set(example):
        if example[key].shape != size:
            raise InputError(
                f"{name}: image and {key} of one size are wanted; the image has "
                f"{size[0]}x{size[1]} pixels, the {key} {'x'.join(map(str, example[key].shape))}"
            )
    if "label" in example:
        ids = np.flatnonzero(np.bincount(example["label"].ravel(), minlength=IGNORE + 1)[:IGNORE])
        if len(ids) and ids[-1] >= classes:
            raise InputError(
                f"{name}: class ids below {classes} (or 255, ignore) are wanted; {ids[-1]} came; "
                "correct the mask or the list of classes"
            )
    return {key: example[key] for key in wanted}


def _read_ahead(row: Callable[[int], Row], rows: int, ahead: int) -> grain.IterDataset:
    """Rows 0, 1, …, made by threads, in order."""
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead + threads)
    return grain.MapDataset.range(rows).map(row).to_iter_dataset(options)


def _stacked(rows: list[Row]) -> Rows:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
