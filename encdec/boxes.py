"""Boxes: float32 (…, 4), (y0, x0, y1, x1) in pixels of the image, half-open.

Deltas say how a box differs from an anchor, in the papers' order (dx, dy, dw, dh), so that
published weights need no permutation. Lists have fixed lengths, with a mask of what counts.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Integer, Shaped

Boxes = Float[Array | np.ndarray, "... n 4"]
Others = Float[Array | np.ndarray, "... m 4"]
Pairs = Float[Array | np.ndarray, "... 4"]
Weights = tuple[float, float, float, float]
Detections = dict[str, Shaped[Array, "b best ..."]]
"""The best n of every image, best first: "boxes" (b, n, 4), "scores" (b, n) in [0, 1], "classes"
(b, n), "valid" (b, n). Where "valid" is false the others mean nothing."""

LARGEST = math.log(1000 / 16)
"""Of dw and dh: a box is at most 62.5 times its anchor (the authors' code, Detectron)."""

SMALLEST = 1e-6  # pixels; a padded box has no size, its deltas must still be numbers


def area(boxes: Boxes) -> Float[Array, "... n"]:
    """In square pixels; 0 for a box whose end lies before its start."""
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def intersection(a: Boxes, b: Others) -> Float[Array, "... n m"]:
    """Area that every box of a shares with every box of b."""
    return _shared(a[..., :, None, :], b[..., None, :, :])


def _shared(a: Pairs, b: Pairs) -> Float[Array, "..."]:
    rows, columns = (
        jnp.maximum(
            jnp.minimum(a[..., i + 2], b[..., i + 2]) - jnp.maximum(a[..., i], b[..., i]), 0
        )
        for i in (0, 1)
    )
    return rows * columns


def _share(part: Float[Array, "*n"], whole: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """part / whole, 0 where there is no whole."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def iou(a: Boxes, b: Others) -> Float[Array, "... n m"]:
    """Intersection over union of every box of a with every box of b, in [0, 1]."""
    shared = intersection(a, b)
    return _share(shared, area(a)[..., :, None] + area(b)[..., None, :] - shared)


def overlap(a: Boxes, b: Others) -> Float[Array, "... n m"]:
    """Share of every box of a that lies in each of b, in [0, 1]: COCO's measure for crowds."""
    shared = intersection(a, b)
    return _share(shared, jnp.broadcast_to(area(a)[..., :, None], shared.shape))


def giou(a: Boxes, b: Boxes) -> Float[Array, "... n"]:
    """Generalised IoU of pairs, in [-1, 1] (Rezatofighi et al. 2019, algorithm 1).

    IoU less the share of the hull that neither box covers: it has a gradient where they are apart.
    """
    shared = _shared(a, b)
    union = area(a) + area(b) - shared
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    hull = area(jnp.concatenate([low, high], -1))
    return _share(shared, union) - _share(hull - union, hull)


def clip(boxes: Float[Array, "*b n 4"], size: Integer[Array, "*b 2"]) -> Float[Array, "*b n 4"]:
    """The part of every box inside an image of that many rows and columns."""
    limit = jnp.concatenate([size, size], -1).astype(boxes.dtype)[..., None, :]
    return jnp.clip(boxes, 0, limit)


def _centred(boxes: Pairs) -> tuple[Float[Array, "... 2"], Float[Array, "... 2"]]:
    """Centre and size, each (x, y)."""
    boxes = jnp.asarray(boxes)
    low, high = boxes[..., 1::-1], boxes[..., :1:-1]
    return low + 0.5 * (high - low), high - low


def encode(
    boxes: Boxes, anchors: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Array, "... n 4"]:
    """Deltas from the anchors to the boxes (Girshick et al. 2014, appendix C).

    dx = (x - xa) / wa, dy = (y - ya) / ha of the centres, dw = log(w / wa), dh = log(h / ha), times
    the weights: 1 for proposals, (10, 10, 5, 5) for regions. Finite for boxes without a size too.
    """
    (centre, size), (at, extent) = _centred(boxes), _centred(anchors)
    extent = jnp.maximum(extent, SMALLEST)
    deltas = [(centre - at) / extent, jnp.log(jnp.maximum(size, SMALLEST) / extent)]
    return jnp.concatenate(deltas, -1) * jnp.array(weights, jnp.float32, ndmin=boxes.ndim)


def decode(
    deltas: Float[Array, "... n 4"], anchors: Others, weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Array, "... n 4"]:
    """The boxes that lie at these deltas from the anchors: the inverse of `encode`, not clipped.

    Anchors of length 1 along an axis serve all deltas there, those of the classes, say.
    dw and dh count as at most `LARGEST`; where they are larger they get no gradient.
    """
    deltas = deltas / jnp.array(weights, jnp.float32, ndmin=deltas.ndim)
    at, extent = _centred(anchors)
    centre = at + deltas[..., :2] * extent
    half = 0.5 * extent * jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST))
    return jnp.concatenate([(centre - half)[..., ::-1], (centre + half)[..., ::-1]], -1)


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"],
    threshold: float,
    groups: Integer[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """Non-maximum suppression, greedy: which boxes are kept.

    From the best on, a box is kept unless its IoU with a kept one of the same group is above the
    threshold. Of equal scores the first is the better one.

    A box is kept if no better one that is kept suppresses it. All boxes decide at once from the
    last decisions, until nothing changes. After r rounds the first r are right, so the end is the
    greedy answer; it needs as many rounds as the longest chain of suppressions is long, a few.
    Takes n² comparisons and bytes: hand in the best few thousand (`top`).
    """
    order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), stable=True, descending=True)
    boxes, valid = boxes[order], valid[order]
    better = jnp.tri(len(order), k=-1, dtype=bool).T  # down: who suppresses; along a row: whom
    over = (iou(boxes, boxes) > threshold) & better
    if groups is not None:
        over &= groups[order][:, None] == groups[order][None]

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        decided = valid & ~(over & kept[:, None]).any(0)
        return decided, (decided != kept).any()

    kept, _ = lax.while_loop(lambda state: state[1], again, (valid, jnp.array(True)))
    return jnp.zeros_like(kept).at[order].set(kept)


def top(
    scores: Float[Array, "b n"], valid: Bool[Array, "b n"], number: int
) -> tuple[Int32[Array, "b m"], Bool[Array, "b m"]]:
    """Places of the best `number` that are valid, best first, and which of them there are."""
    scores = jnp.where(valid, scores, -jnp.inf)
    missing = max(0, number - scores.shape[1])
    best, index = lax.top_k(scores, number - missing)
    at_end = ((0, 0), (0, missing))
    return jnp.pad(index, at_end), jnp.pad(best, at_end, constant_values=-jnp.inf) > -jnp.inf


def take(values: Shaped[Array, "b n *c"], index: Int32[Array, "b m"]) -> Shaped[Array, "b m *c"]:
    """The values at these places of every image."""
    return jax.vmap(lambda values, index: values[index])(values, index)


def large(boxes: Boxes, smallest: float) -> Bool[Array, "... n"]:
    """Both sides at least that many pixels."""
    return (boxes[..., 2:] - boxes[..., :2] >= smallest).all(-1)


def detections(
    boxes: Float[Array, "b n kinds 4"],
    probs: Float[Array, "b n k"],
    valid: Bool[Array, "b n"],
    *,
    threshold: float,
    overlap: float,
    candidates: int,
    number: int,
    smallest: float = 0.0,
    levels: tuple[int, ...] = (),
) -> Detections:
    """The best `number` of every image, after non-maximum suppression within each class.

    Args:
      boxes: clipped to the image; `kinds` is the number of classes k, or 1 for boxes that all
        classes share.
      probs: in [0, 1], of the classes without background.
      threshold: probabilities above it are considered.
      overlap: largest IoU of two detections of a class.
      candidates: the best (box, class) pairs that suppression sees: of every level, if `levels`
        says how many boxes each has, one after the other (RetinaNet), else of all (R-CNN).
      smallest: sides in pixels of a box that counts.
    """
    classes, kinds = probs.shape[2], boxes.shape[2]
    considered = (probs > threshold) & valid[..., None] & large(boxes, smallest)
    probs, considered = (x.reshape(x.shape[0], -1) for x in (probs, considered))
    tops, start = [], 0
    for count in (classes * n for n in levels or boxes.shape[1:2]):
        level = slice(start, start + count)
        index, found = top(probs[:, level], considered[:, level], min(candidates, count))
        tops.append((index + start, found))
        start += count
    pair, found = (jnp.concatenate(parts, 1) for parts in zip(*tops, strict=True))
    box, label = pair // classes, pair % classes
    boxes = take(boxes.reshape(boxes.shape[0], -1, 4), box * kinds + label % kinds)
    scores = take(probs, pair)
    kept = jax.vmap(nms, (0, 0, 0, None, 0))(boxes, scores, found, overlap, label)
    return _best(boxes, scores, label, kept, number)


def detections_by_class(
    boxes: Float[Array, "b n 4"],
    probs: Float[Array, "b n k"],
    *,
    threshold: float,
    overlap: float,
    candidates: int,
    number: int,
) -> Detections:
    """As `detections`, but suppression sees the best `candidates` of every class (SSD)."""
    b, n, classes = probs.shape
    scores = jnp.moveaxis(probs, 2, 1).reshape(b * classes, n)
    index, found = top(scores, scores > threshold, min(candidates, n))
    scores = take(scores, index)
    box, scores, found = (
        x.reshape(b, classes, -1, *x.shape[2:])
        for x in (take(boxes, index.reshape(b, -1)), scores, found)
    )
    return _best_of_groups(box, scores, found, overlap, number)


def proposals(
    boxes: Sequence[Float[Array, "b _ 4"]],
    scores: Sequence[Float[Array, "b _"]],
    *,
    overlap: float,
    candidates: int,
    number: int,
    smallest: float = 0.0,
) -> Detections:
    """The best `number` of all levels; each level suppresses only itself (RPN).

    "classes" are here the levels, 0 the first.

    Args:
      boxes: one entry for a level, of any length; clipped to the image.
      scores: likewise; finite, probabilities or logits: they come back as they are.
      candidates: the best boxes of a level that suppression sees.
      overlap: as for `detections`; likewise `smallest`.
    """
    candidates = min(candidates, max(level.shape[1] for level in scores))
    levels = []
    for box, score in zip(boxes, scores, strict=True):
        index, found = top(score, jnp.ones(score.shape, bool), candidates)
        box = take(box, index)
        levels.append((box, take(score, index), found & large(box, smallest)))
    stacked = (jnp.stack(part, 1) for part in zip(*levels, strict=True))
    return _best_of_groups(*stacked, overlap, number)


def _best_of_groups(
    boxes: Float[Array, "b g n 4"],
    scores: Float[Array, "b g n"],
    valid: Bool[Array, "b g n"],
    overlap: float,
    number: int,
) -> Detections:
    """The best of all groups, of which each suppresses itself: g times fewer comparisons."""
    suppress = jax.vmap(jax.vmap(nms, (0, 0, 0, None)), (0, 0, 0, None))
    kept = suppress(boxes, scores, valid, overlap)
    boxes, scores, kept = (x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (boxes, scores, kept))
    group = jnp.broadcast_to(jnp.arange(scores.shape[1]) // valid.shape[2], scores.shape)
    return _best(boxes, scores, group, kept, number)


def _best(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n"],
    classes: Integer[Array, "b n"],
    kept: Bool[Array, "b n"],
    number: int,
) -> Detections:
    best, found = top(scores, kept, number)
    parts = {"boxes": boxes, "scores": scores, "classes": classes}
    return {name: take(part, best) for name, part in parts.items()} | {"valid": found}
