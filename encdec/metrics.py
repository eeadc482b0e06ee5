"""Metrics as integer sums: add them over batches and devices, then take `scores` on the host.

Sums are int32 on the device (exact up to 2³¹ pixels a call; the host adds them up in int64) and
cover whole data sets, so a short last batch or another number of devices changes no digit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int32, Int64, Integer, UInt32

from encdec.arrays import IGNORE, Labels

LabelsOrSets = Integer[Array, "b h w *k"]
Sums = dict[str, Integer[Array, "..."] | Integer[np.ndarray, "..."]]


def confusion(
    predicted: Labels, labels: Labels, classes: int, ignore: int = IGNORE
) -> Int32[Array, "{classes} {classes}"]:
    """Pixels of true class i (row) predicted as j (column): n_ij of Long et al. (2015, §5).

    Labels outside 0..classes-1 count nowhere, `ignore` among them.
    """
    return confusion_of_each(predicted, labels, classes, ignore).sum(0)


def confusion_of_each(
    predicted: Labels, labels: Labels, classes: int, ignore: int = IGNORE
) -> Int32[Array, "b {classes} {classes}"]:
    """As `confusion`, of each image."""
    valid = (labels != ignore) & (labels >= 0) & (labels < classes)
    pair = labels.astype(jnp.int32) * classes + predicted.astype(jnp.int32)
    pair = jnp.where(valid, pair, classes**2).reshape(len(labels), -1)
    counts = jax.vmap(lambda p: jnp.bincount(p, length=classes**2 + 1))(pair)
    return counts[:, :-1].reshape(-1, classes, classes).astype(jnp.int32)


def confusions(
    predicted: Integer[Array, "b h w k"], labels: Integer[Array, "b h w k"], ignore: int = IGNORE
) -> Int32[Array, "k 2 2"]:
    """One 2x2 confusion matrix for each class of multi-label maps of 0 and 1."""
    two = jax.vmap(lambda p, t: confusion(p, t, 2, ignore), in_axes=-1)
    return two(predicted, labels)


def boundary(
    predicted: LabelsOrSets,
    labels: LabelsOrSets,
    classes: int,
    tolerance: int = 2,
    ignore: int = IGNORE,
) -> Int32[Array, "4 {classes}"]:
    """Boundary pixels of each class, matched within `tolerance` pixels (after Csurka et al. 2013).

    Rows: predicted boundary pixels near a true one, all predicted ones, true ones near a predicted
    one, all true ones. A boundary pixel of class c is a pixel of c with a 4-neighbour that is not
    of c; ignored pixels are neither, and the image's edge is no boundary. Near: at most
    `tolerance` rows and columns away (a square, so that it dilates one axis at a time).

    Csurka et al. score each image and average; these sums are over all pixels of the data set, so
    images weigh by the length of their boundaries and a class absent from an image costs nothing.
    """
    valid = (labels != ignore) & ((labels < classes) | (labels.ndim == 4))
    parts = []
    for first in range(0, classes, 32):  # 32 classes travel as the bits of one uint32
        count = min(32, classes - first)
        if labels.ndim == 4:
            maps = (valid, valid & (predicted == 1), valid & (labels == 1))
            seen, guess, truth = (_pack(m[..., first : first + count]) for m in maps)
        else:
            seen = jnp.where(valid, ~jnp.uint32(0), 0)
            guess, truth = (_bit(ids, valid, first) for ids in (predicted, labels))
        guess, truth = _edges(guess, seen), _edges(truth, seen)
        near = [guess & _dilate(truth, tolerance), guess, truth & _dilate(guess, tolerance), truth]
        parts.append(jnp.stack([_count(bits, count) for bits in near]))
    return jnp.concatenate(parts, axis=1)


def _bit(ids: Labels, valid: Bool[Array, "b h w"], first: int) -> UInt32[Array, "b h w"]:
    """Bit i is set where a valid pixel is of class first + i."""
    shift = ids.astype(jnp.int32) - first
    valid &= (shift >= 0) & (shift < 32)
    return jnp.where(valid, jnp.uint32(1) << jnp.where(valid, shift, 0).astype(jnp.uint32), 0)


def _pack(sets: Bool[Array, "b h w k"]) -> UInt32[Array, "b h w"]:
    """Bit i is set where class i is."""
    values = jnp.uint32(1) << jnp.arange(sets.shape[-1], dtype=jnp.uint32)
    return jnp.where(sets, values[None, None, None], 0).sum(-1, dtype=jnp.uint32)


def _edges(bits: UInt32[Array, "b h w"], seen: UInt32[Array, "b h w"]) -> UInt32[Array, "b h w"]:
    """The set bits that are unset, though seen, in one of the four neighbours."""
    outside = jnp.pad(seen & ~bits, ((0, 0), (1, 1), (1, 1)))
    rows = outside[:, :-2, 1:-1] | outside[:, 2:, 1:-1]
    return bits & (rows | outside[:, 1:-1, :-2] | outside[:, 1:-1, 2:])


def _dilate(bits: UInt32[Array, "b h w"], radius: int) -> UInt32[Array, "b h w"]:
    """Union over a square of 2 radius + 1 pixels, one axis after the other."""
    for axis in (1, 2):
        size = bits.shape[axis]
        padded = jnp.pad(bits, [(radius, radius) if a == axis else (0, 0) for a in range(3)])
        bits = jnp.zeros_like(bits)
        for start in range(2 * radius + 1):
            bits |= jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
    return bits


def _count(bits: UInt32[Array, "b h w"], classes: int) -> Int32[Array, "{classes}"]:
    """How many pixels have each bit."""
    shifts = jnp.arange(classes, dtype=jnp.uint32)
    return jax.lax.map(lambda c: ((bits >> c) & 1).sum(dtype=jnp.int32), shifts)


def scores(sums: Sums) -> dict[str, float]:
    """Scores in [0, 1] from added-up sums; NaN where nothing was there to be scored.

    pixel_accuracy, mean_accuracy, mean_iou, frequency_weighted_iou: Long et al. (2015, §5) as their
    score.py averages: a class absent from truth and prediction drops out, one that is predicted but
    never true has IoU 0. `iou/3`: class 3. boundary_f: 2PR / (P + R) of each class with any
    boundary, then the mean. Matrices of `confusions` (k, 2, 2) give the scores of the k true sides.
    """
    table = np.asarray(sums["confusion"], np.int64)
    if table.ndim == 3:
        hit, true, predicted = table[:, 1, 1], table[:, 1].sum(-1), table[:, :, 1].sum(-1)
        right = hit.sum() + table[:, 0, 0].sum()
    else:
        hit, true, predicted = np.diag(table), table.sum(1), table.sum(0)
        right = hit.sum()
    iou = _ratio(hit, true + predicted - hit)
    result = {
        "pixel_accuracy": float(_ratio(right[None], table.sum()[None])[0]),
        "mean_accuracy": _mean(_ratio(hit, true)),
        "mean_iou": _mean(iou),
        "frequency_weighted_iou": float(_ratio(np.nansum(true * iou)[None], true.sum()[None])[0]),
    }
    if "boundary" in sums:
        near_true, guessed, near_guess, edges = np.asarray(sums["boundary"], np.float64)
        # 2PR / (P + R) with P = near_true / guessed, R = near_guess / edges, safe where one is 0.
        above, below = 2 * near_true * near_guess, near_true * edges + near_guess * guessed
        f = np.where(below > 0, above / np.maximum(below, 1), 0.0)
        result["boundary_f"] = _mean(np.where(guessed + edges > 0, f, np.nan))
    return result | {f"iou/{i}": float(value) for i, value in enumerate(iou)}


def _ratio(above: np.ndarray, below: Int64[np.ndarray, "k"]) -> Float64[np.ndarray, "k"]:
    """above / below, NaN where below is 0."""
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def _mean(values: Float64[np.ndarray, "k"]) -> float:
    """Mean of what is not NaN; NaN when nothing is left."""
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else float("nan")
