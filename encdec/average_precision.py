"""Detections scored as COCO does: average precision, and average recall of proposals.

Lin et al. (2014), "Microsoft COCO", and its evaluation script, which pycocotools has; equal to it.
An image leaves a record, records are joined by `merge`, and `scores` reads the data set's off them.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int64, Shaped

from encdec.errors import InputError
from encdec.masks import intersection

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""The least IoU of a hit: 0.5, 0.55 … 0.95."""

RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off."""

AREAS = {"": (0, 1e10), "_s": (0, 32**2), "_m": (32**2, 96**2), "_l": (96**2, 1e10)}
"""Ranges of the area in square pixels, both ends included: all, small, medium, large."""

NUMBERS = (1, 10, 100, 1000)
"""Detections of an image (and class) that the average recalls allow."""

MOST = 100
"""Detections of an image and class that average precision allows."""

HIT, FALSE, NEITHER = 1, 0, -1

Objects = dict[str, Shaped[np.ndarray, "_ ..."]]
"""The objects of one image, found or true; what they are called is told where they are taken."""

Record = dict[str, Shaped[np.ndarray, "_ ..."]]
"""What `measure` keeps: "class", "score", "rank" and "outcome" of each detection, "true_class" and
"counted" of each true object."""


def measure(
    found: Objects,
    truth: Objects,
    *,
    by: Literal["boxes", "masks"] = "boxes",
    agnostic: bool = False,
) -> Record:
    """Matches the detections of one image with its true objects, best score first.

    Of the true objects of its class a detection takes the free one of highest IoU, at or above the
    threshold. It is a hit if that one counts; one that lies in a crowd (for crowds the IoU is the
    intersection over the detection's area, and many may match one), or that takes an object
    outside the range of areas, or takes none and is itself outside the range, is neither hit nor
    false. An object that counts is preferred to one that does not.

    Args:
      found: "boxes" (n, 4), "scores" (n,), "classes" (n,); "valid" (n,) if padded.
      truth: "boxes" (m, 4), "classes" (m,); "crowd" (m,) if there are crowds (VOC's difficult
        objects are treated as such), "areas" (m,) in square pixels where the area is not that of
        the box or mask (COCO's is the polygons'), "box_mask" (m,) if padded.
      by: what overlaps; "masks" are (n, h, w) and (m, h, w), true inside, in place of boxes.
      agnostic: of proposals: all detections and true objects are of class 0.

    Returns:
      class, score, rank (n,): of the valid detections, by falling score; rank among those of its
        class, from 0.
      outcome (n, 4, 10) int8: HIT, FALSE or NEITHER at each of `AREAS` and `OVERLAPS`.
      true_class (m,), counted (m, 4) bool: whether an object counts at each of `AREAS`.

    Raises:
      InputError: there are no masks to measure by.
    """
    found = _shown(found, "valid", (by, "scores", "classes"))
    truth = _shown(truth, "box_mask", (by, "classes", "crowd", "areas"))
    order = np.argsort(-found["scores"].astype(np.float64), kind="stable")
    found = {key: value[order] for key, value in found.items()}
    kinds, true_kinds = (o["classes"].astype(np.int64) * (not agnostic) for o in (found, truth))
    crowd = truth.get("crowd", np.zeros(len(true_kinds), bool)).astype(bool)

    both, area, true_area = (_masks if by == "masks" else _boxes)(found[by], truth[by])
    union = area[:, None] + np.where(crowd, 0, true_area - both)
    iou = np.where(both > 0, both / np.where(both > 0, union, 1), 0.0)
    iou[kinds[:, None] != true_kinds] = -1
    counted = _within(truth.get("areas", true_area)) & ~crowd[:, None]

    outcome = np.zeros((len(kinds), len(AREAS), len(OVERLAPS)), np.int8)
    outcome[~_within(area)] = NEITHER
    _match(iou, counted, crowd, outcome)
    return {
        "class": kinds,
        "score": found["scores"].astype(np.float64),
        "rank": _ranks(kinds),
        "outcome": outcome,
        "true_class": true_kinds,
        "counted": counted,
    }


def _shown(objects: Objects, mask: str, keys: tuple[str, ...]) -> Objects:
    """What of `keys` there is, without padding; the first of them must be."""
    if keys[0] not in objects:
        raise InputError(
            f"objects measured by {keys[0]} have {keys[0]}; got {', '.join(sorted(objects))}; "
            "add them, or measure by the others"
        )
    shown = objects.get(mask, np.ones(len(objects["classes"]), bool)).astype(bool)
    return {key: np.asarray(objects[key])[shown] for key in keys if key in objects}


def _boxes(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n"], Float64[np.ndarray, "m"]]:
    """Intersection of every pair, area of each a and of each b; 0 where a box has no inside."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    area, other = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (a, b))
    return np.prod(np.maximum(sides, 0), axis=-1), area, other


def _masks(
    a: Bool[np.ndarray, "n h w"], b: Bool[np.ndarray, "m h w"]
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n"], Float64[np.ndarray, "m"]]:
    """As `_boxes`, in pixels."""
    return intersection(a, b), a.sum((1, 2)).astype(float), b.sum((1, 2)).astype(float)


def _within(area: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n 4"]:
    """Whether each area is in each of `AREAS`."""
    low, high = np.array(list(AREAS.values())).T
    area = area.astype(np.float64)[:, None]
    return (area >= low) & (area <= high)


def _match(
    iou: Float64[np.ndarray, "n m"],
    counted: Bool[np.ndarray, "m 4"],
    crowd: Bool[np.ndarray, "m"],
    outcome: Int8[np.ndarray, "n 4 10"],
) -> None:
    """Sets the outcome of each detection that takes a true object; rows of `iou` by rank."""
    worth = np.repeat(np.where(counted.T, 2, 1)[:, None], len(OVERLAPS), axis=1).astype(np.int8)
    each, at = np.ogrid[: len(AREAS), : len(OVERLAPS)]
    for i in np.flatnonzero((iou >= OVERLAPS[0]).any(1)):
        near = np.flatnonzero(iou[i] >= OVERLAPS[0])[::-1]  # of equal ones the last, as pycocotools
        near = near[np.argsort(-iou[i, near], kind="stable")]
        free = worth[:, :, near] * (iou[i, near] >= OVERLAPS[:, None])
        if not free.any():
            continue
        best = free.argmax(-1)
        value, taken = free[each, at, best], near[best]
        outcome[i] = np.where(value == 2, HIT, np.where(value == 1, NEITHER, outcome[i]))
        worth[each, at, taken] *= (value == 0) | crowd[taken]  # a crowd stays free


def _ranks(kinds: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """How many of the same class come before each."""
    order = np.argsort(kinds, kind="stable")
    rank, place = np.empty_like(kinds), np.arange(len(kinds))
    rank[order] = place - np.searchsorted(kinds[order], kinds[order])
    return rank


def merge(records: list[Record]) -> Record:
    """One record of many images, itself fit to be merged.

    Detections of equal score rank by their place: in the order of image ids, as pycocotools has it.

    Raises:
      InputError: there is no record.
    """
    if not records:
        raise InputError(
            "scores need the record of one image at least; got none; name a split with images"
        )
    return {key: np.concatenate([record[key] for record in records]) for key in records[0]}


def scores(records: list[Record], classes: int, most: int = MOST) -> dict[str, float]:
    """Scores in [0, 1] of a data set; NaN where no true object counts.

    ap: precision at 101 recalls, the highest at that recall or above, averaged over them, the ten
    `OVERLAPS` and the classes that have true objects. ap50, ap75: at one IoU. ap_s, ap_m, ap_l: of
    objects of an area (`AREAS`). `ap/3`, `ap50/3`: of class 3. ar10: recall by the ten best
    detections of each image and class, averaged likewise. ar_s, ar_m, ar_l: by the `most` best.

    Args:
      records: of `measure`, images in the order of their ids.
      classes: how many; 1 where measured `agnostic`.
      most: detections of an image and class. COCO has 100 for detections; 1,000 proposals make
        ar1000 and, as in table 1 of Lin et al. (2017, FPN), the other recalls.

    Raises:
      InputError: a class is not 0 to classes - 1; there is no record.
    """
    record = merge(records)
    for key in ("class", "true_class"):
        if (wrong := (record[key] < 0) | (record[key] >= classes)).any():
            raise InputError(
                f"classes of objects are 0 to {classes - 1}; got {record[key][wrong][0]}; "
                "check the number of classes of the model and the data set"
            )
    numbers = sorted({n for n in NUMBERS if n <= most} | {most})
    precision = np.full((classes, len(AREAS), len(OVERLAPS)), np.nan)
    recall = np.full((classes, len(AREAS), len(OVERLAPS), len(numbers)), np.nan)
    for k in range(classes):
        mine = np.flatnonzero(record["class"] == k)
        mine = mine[np.argsort(-record["score"][mine], kind="stable")]
        rank, outcome = record["rank"][mine], record["outcome"][mine]
        objects = record["counted"][record["true_class"] == k].sum(0)
        for a in np.flatnonzero(objects):
            precision[k, a] = _average(outcome[rank < MOST, a], objects[a])
            for i, number in enumerate(numbers):
                recall[k, a, :, i] = (outcome[rank < number, a] == HIT).sum(0) / objects[a]

    result = {"ap": _mean(precision[:, 0])}
    result |= {"ap50": _mean(precision[:, 0, 0]), "ap75": _mean(precision[:, 0, 5])}
    result |= {f"ap{name}": _mean(precision[:, a]) for a, name in enumerate(AREAS) if name}
    result |= {f"ar{n}": _mean(recall[:, 0, :, i]) for i, n in enumerate(numbers)}
    result |= {f"ar{name}": _mean(recall[:, a, :, -1]) for a, name in enumerate(AREAS) if name}
    result |= {f"ap/{k}": _mean(precision[k, 0]) for k in range(classes)}
    return result | {f"ap50/{k}": float(precision[k, 0, 0]) for k in range(classes)}


def f1(record: Record, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall at IoU 0.5 of the detections with this score or more;
    NaN where there are none, and no true object counts."""
    outcome = record["outcome"][record["score"] >= threshold, 0, 0]
    hits, false = (outcome == HIT).sum(), (outcome == FALSE).sum()
    missed = record["counted"][:, 0].sum() - hits
    below = 2 * hits + false + missed
    return float(2 * hits / below) if below else float("nan")


def _average(
    outcome: Int8[np.ndarray, "n 10"], objects: int | np.integer
) -> Float64[np.ndarray, "10"]:
    """Interpolated precision, averaged over `RECALLS`, of one class and range of areas."""
    hits, wrong = (outcome == HIT).cumsum(0), (outcome == FALSE).cumsum(0)
    precision = hits / np.maximum(hits + wrong, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the highest at this recall or above
    ends = np.append(precision, np.zeros((1, len(OVERLAPS))), axis=0)
    places = (np.searchsorted(reached, RECALLS) for reached in (hits / objects).T)
    return np.stack([ends[place, t].mean() for t, place in enumerate(places)])


def _mean(values: Float64[np.ndarray, "..."]) -> float:
    """Mean of what is not NaN; NaN when nothing is left."""
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else float("nan")
