"""Touching objects: split on the host, matched one to one with the true instances, counted."""

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, Shaped
from scipy import ndimage
from scipy.sparse import coo_array

from encdec.arrays import IGNORE
from encdec.data.fit import Example
from encdec.errors import InputError

Ids = Int32[np.ndarray, "h w"]
"""Which object a pixel belongs to; 0 is background."""

TWENTIETHS = np.arange(10, 20)  # thresholds of the IoU, 0.5 to 0.95: whole numbers compare exactly
SMOOTH, NECK = 1.0, 0.95  # pixels; a share. Chosen on training masks of nuclei (DSB 2018)
SMALLEST = 16  # pixels; the smallest of those nuclei has 21
HOLE = 64  # pixels; chosen on predictions of training images


def measure(foreground: Float[np.ndarray, "h w"], example: Example) -> dict[str, np.ndarray]:
    """Sums of one image, to add over images and hosts; ignored pixels are background to both.

    Args:
      foreground: probability of an object in [0, 1]; an object where it is above one half.
      example: "label" and "instances" of the same size.

    Returns:
      counts, counts_unsplit: int64 (10, 3), true positives, false positives and false negatives at
        each IoU, of `split` and of plain `components`, each `filled` and without specks (`large`).
      overlaps: float64 (2,), IoU of the pairs above 0.5, and of SEG's pairs.

    Raises:
      InputError: the example has no instances.
    """
    if "instances" not in example:
        raise InputError(
            "objects are scored against true instances, the data set has none: "
            "take 'objects' out of also, or name data with instance masks"
        )
    ignored = example["label"] == IGNORE
    truth = np.where(ignored, 0, example["instances"])
    mask = filled(np.where(ignored, 0, foreground) > 0.5)
    counts, ious = match(large(np.where(ignored, 0, split(mask))), truth)
    unsplit, _ = match(large(np.where(ignored, 0, components(mask))), truth)
    return {"counts": counts, "counts_unsplit": unsplit, "overlaps": ious}


def components(mask: Bool[np.ndarray, "h w"]) -> Ids:
    """Numbers the 4-connected regions of the mask from 1."""
    return ndimage.label(mask)[0]


def filled(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask without holes of less than `HOLE` pixels that a single component encloses."""
    mask = np.pad(mask, 1)
    ids = components(mask)
    holes, count = ndimage.label(~mask, np.ones((3, 3)))
    highest = ndimage.maximum_filter(ids, 3)
    lowest = ndimage.minimum_filter(np.where(mask, ids, np.iinfo(ids.dtype).max), 3)
    each = np.arange(count + 1)
    alone = ndimage.maximum(highest, holes, each) == ndimage.minimum(lowest, holes, each)
    small = alone & (np.bincount(holes.ravel(), minlength=count + 1) < HOLE)
    small[holes[0, 0]] = False  # what lies outside
    return (mask | small[holes])[1:-1, 1:-1]


def large(ids: Ids) -> Ids:
    """The objects of at least `SMALLEST` pixels; what is smaller is background."""
    return np.where(np.bincount(ids.ravel())[ids] >= SMALLEST, ids, 0)


def split(mask: Bool[np.ndarray, "h w"]) -> Ids:
    """Numbers the objects from 1, touching ones cut apart: a watershed of the distance map.

    Every pixel climbs the distance to the background, smoothed by a Gaussian of `SMOOTH` pixels, to
    the highest of its eight neighbours; pixels that end on one peak are an object. Where two
    objects touch, those whose saddle is at least `NECK` times as high as the lower of their peaks
    are joined, the highest saddle first: a cut is where there is a neck, whatever the size. Nothing
    leaves its 4-connected component, so that none is lost and none are joined. Meant for round
    objects such as nuclei: slender, slanted ones come out in pieces.
    """
    regions = np.pad(components(mask), 1)
    height = ndimage.distance_transform_edt(regions > 0)
    height = ndimage.gaussian_filter(height, SMOOTH, mode="constant")
    peaks = _joined(_followed(_highest(height, regions)), height, regions)
    inside = np.flatnonzero(regions)
    ids = np.zeros(regions.shape, np.int32)
    ids.flat[inside] = np.unique(peaks[inside], return_inverse=True)[1] + 1
    return ids[1:-1, 1:-1]


def _highest(height: Float[np.ndarray, "h w"], regions: Ids) -> Integer[np.ndarray, "n"]:
    """Flat place of the highest pixel of the same region among the eight around each, and itself.

    Of equals the first in reading order, so that no two pixels point at each other.
    """
    inside, row, level = np.flatnonzero(regions), regions.shape[1], height.ravel()
    best, top = inside.copy(), np.full(inside.size, -1.0)
    for step in (-row - 1, -row, -row + 1, -1, 0, 1, row - 1, row, row + 1):
        there = inside + step
        higher = (regions.flat[there] == regions.flat[inside]) & (level[there] > top)
        best[higher], top[higher] = there[higher], level[there[higher]]
    above = np.arange(regions.size)
    above[inside] = best
    return above


def _followed(above: Integer[np.ndarray, "n"]) -> Integer[np.ndarray, "n"]:
    """Where each ends that goes from place to place; twice as far at each turn."""
    while not np.array_equal(above, further := above[above]):
        above = further
    return above


def _joined(
    peaks: Integer[np.ndarray, "n"], height: Float[np.ndarray, "h w"], regions: Ids
) -> Integer[np.ndarray, "n"]:
    """The peak of each pixel's object, given the one that it climbed."""
    inside, row, level = np.flatnonzero(regions), regions.shape[1], height.ravel()
    saddles: dict[tuple[int, int], float] = {}
    for step in (1, row - 1, row, row + 1):
        across = regions.flat[inside] == regions.flat[inside + step]
        across &= peaks[inside] != peaks[inside + step]
        one, other = inside[across], inside[across] + step
        pairs = np.sort(np.stack([peaks[one], peaks[other]], 1), axis=1).tolist()
        passes = np.minimum(level[one], level[other]).tolist()
        for pair, saddle in zip(map(tuple, pairs), passes, strict=True):
            saddles[pair] = max(saddle, saddles.get(pair, 0.0))
    up = {peak: peak for pair in saddles for peak in pair}

    def top(peak: int) -> int:
        while up[peak] != peak:
            peak = up[peak]
        return peak

    for pair, saddle in sorted(saddles.items(), key=lambda item: -item[1]):
        lower, higher = sorted(map(top, pair), key=lambda peak: (level[peak], -peak))
        if saddle >= NECK * level[lower]:
            up[lower] = higher
    joined = np.arange(peaks.size)
    joined[np.fromiter(up.keys(), int)] = np.fromiter(up.values(), int)
    return _followed(joined)[peaks]


def crossing(ids: Integer[np.ndarray, "*size"], truth: Integer[np.ndarray, "*size"]) -> coo_array:
    """Pixels that have id i (row) and true id j (column), each pair with any pixel once."""
    pixels = np.ones(ids.size, np.int64)
    shape = (ids.max(initial=0) + 1, truth.max(initial=0) + 1)
    return coo_array((pixels, (ids.ravel(), truth.ravel())), shape=shape).tocsr().tocoo()


def match(
    ids: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"]
) -> tuple[Shaped[np.ndarray, "10 3"], Float[np.ndarray, "2"]]:
    """Pairs objects with true ones: (counts, overlaps) as in `measure`.

    A pair needs an IoU above the threshold. Above 0.5 nothing has two partners, so the best
    one-to-one matching is all such pairs. SEG of the cell tracking challenge pairs a true object
    with the one that covers more than half of it.
    """
    table = crossing(ids, truth)
    found, real = table.sum(1), table.sum(0)
    objects, cells = (found[1:] > 0).sum(), (real[1:] > 0).sum()
    inner = (table.coords[0] > 0) & (table.coords[1] > 0)
    row, column, both = table.coords[0][inner], table.coords[1][inner], table.data[inner]
    union = found[row] + real[column] - both
    hits = (20 * both > TWENTIETHS[:, None] * union[None]).sum(1)
    iou = both / union
    counts = np.stack([hits, objects - hits, cells - hits], axis=1)
    return counts, np.array([iou[2 * both > union].sum(), iou[2 * both > real[column]].sum()])


def scores(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores in [0, 1] over all objects of the set, not a mean of images; NaN if there are none.

    object_f1: 2tp / (2tp + fp + fn) at IoU 0.5; object_f1_unsplit: of plain components, so what
    the net keeps apart by itself. `ap/0.75`: tp / (tp + fp + fn) at IoU 0.75, the "average
    precision" of the Data Science Bowl 2018 and StarDist (Schmidt et al. 2018, §3); object_ap: its
    mean over 0.5, 0.55 … 0.95. object_iou: mean IoU of the pairs above 0.5. seg: mean IoU of the
    true objects with what covers more than half of them, 0 where nothing does.
    """
    tp, fp, fn = sums["counts"].T
    ap = _ratio(tp, tp + fp + fn)
    iou, seg = _ratio(sums["overlaps"], np.array([tp[0], tp[0] + fn[0]]))
    result = {
        "object_f1": _f1(sums["counts"]),
        "object_f1_unsplit": _f1(sums["counts_unsplit"]),
        "object_ap": float(ap.mean()),
        "object_iou": float(iou),
        "seg": float(seg),
    }
    return result | {
        f"ap/{k / 20:.2f}": float(value) for k, value in zip(TWENTIETHS, ap, strict=True)
    }


def _f1(counts: Integer[np.ndarray, "10 3"]) -> float:
    """At the lowest IoU."""
    tp, fp, fn = counts[:1].T
    return float(_ratio(2 * tp, 2 * tp + fp + fn)[0])


def _ratio(above: np.ndarray, below: np.ndarray) -> Float[np.ndarray, "n"]:
    """above / below, NaN where below is 0."""
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)
