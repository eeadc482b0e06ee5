"""Losses of pixels and of regions, each as (sum, count): a mean over devices is Σ sum / Σ count.

Every loss is `(logits, labels, *, weights=None, ignore=255) -> (sum, count)`, in float32 whatever
the logits are. What the labels look like says how the logits are read:

  labels (b, h, w), k > 1 logits    one class id per pixel: softmax (multi-class)
  labels (b, h, w), k = 1 logit     0 or 1 per pixel: sigmoid (binary)
  labels (b, h, w, k)               0 or 1 per pixel and class: sigmoid (multi-label)

An entry labelled `ignore` has weight 0, and an entry of weight 0 changes neither the value nor the
gradient, not even when its logits are infinite. `weights` are per pixel, never negative.

Large logits (150 classes at 512x512) are read in bands of rows, see `summed`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Float32, Integer

from encdec.arrays import IGNORE, Logits

LabelsOrSets = Integer[Array, "b h w *k"]
Weights = Float[Array, "b h w"] | None
SumCount = tuple[Float32[Array, ""], Float32[Array, ""]]


class Pixels(NamedTuple):
    """Logits, truth and weights of one batch, read by the table above."""

    logits: Float32[Array, "b h w k"]
    truth: Float32[Array, "b h w k"]
    weights: Float32[Array, "b h w k"]
    exclusive: bool

    def probs(self) -> Float32[Array, "b h w k"]:
        """Softmax where one pixel has one class, else a sigmoid for each class."""
        return jax.nn.softmax(self.logits) if self.exclusive else jax.nn.sigmoid(self.logits)

    def sum(self, values: Float32[Array, "b h w k"]) -> SumCount:
        """Weighted sum of the entries' values, and the sum of the weights."""
        return (self.weights * values).sum(), self.weights.sum()

    def seen(self) -> Float32[Array, "b k"]:
        """Above 0 for the regions that a region loss averages: (image, class) pairs.

        Under softmax those whose class is present (Berman et al. 2018, §3.2): a false pixel of an
        absent class is already a missing pixel of a present one. Under sigmoid every pair that is
        labelled at all, or false pixels in an empty image would cost nothing.
        """
        return (self.weights * self.truth if self.exclusive else self.weights).sum((1, 2))


def read(logits: Logits, labels: LabelsOrSets, weights: Weights, ignore: int) -> Pixels:
    """Logits, truth and weights in one shape; ignored entries have weight 0 and logits 0."""
    exclusive = labels.ndim == 3 and logits.shape[-1] > 1
    entries = labels if labels.ndim == 4 else labels[..., None]
    valid = (entries != ignore).astype(jnp.float32)
    if weights is not None:
        valid = jnp.where(valid > 0, weights[..., None].astype(jnp.float32), 0)
    valid = jnp.broadcast_to(valid, logits.shape)
    # Zeroed before any arithmetic: 0 * inf would put NaN into the gradient.
    logits = jnp.where(valid > 0, logits.astype(jnp.float32), 0)
    truth = jax.nn.one_hot(labels, logits.shape[-1]) if exclusive else entries == 1
    return Pixels(logits, truth.astype(jnp.float32), valid, exclusive)


LARGE, BAND = 2**26, 2**20
"""Logits that are read in bands, and logits in a band."""


def summed(sums: Callable[..., Any], logits: Logits, labels: LabelsOrSets, weights: Weights) -> Any:
    """`sums(logits, labels, weights)`, a tree of sums over pixels; by bands of rows if large.

    The gradient then reads each band again, so that nothing of the logits' size is held beside the
    logits and their gradient: with 150 classes at 512x512 and a batch of 16 temporaries are less
    than 0.05 of the logits' bytes (tests/test_losses.py).
    """
    if logits.size <= LARGE:
        return sums(logits, labels, weights)
    height = logits.shape[1]
    rows = min(max(1, BAND * height // logits.size), height)
    bands = height // rows

    def band(tree: Any, start: Any, rows: int) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, rows, 1), tree)

    def of(floats: Any, start: Any, rows: int) -> Any:
        return sums(floats[0], band(labels, start, rows), floats[1])

    def forward(floats: Any) -> Any:
        def add(i: Array, total: Any) -> Any:
            more = of(band(floats, i * rows, rows), i * rows, rows)
            return jax.tree.map(jnp.add, total, more)

        total = lax.fori_loop(1, bands, add, of(band(floats, 0, rows), 0, rows))
        if left := height % rows:
            more = of(band(floats, height - left, left), height - left, left)
            total = jax.tree.map(jnp.add, total, more)
        return total

    def backward(floats: Any, cotangent: Any) -> tuple[Any]:
        def put(grads: Any, start: Any, rows: int) -> Any:
            part = band(floats, start, rows)
            found = jax.vjp(lambda part: of(part, start, rows), part)[1](cotangent)[0]
            return jax.tree.map(
                lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 1), grads, found
            )

        grads = jax.tree.map(jnp.zeros_like, floats)
        grads = lax.fori_loop(0, bands, lambda i, grads: put(grads, i * rows, rows), grads)
        if left := height % rows:
            grads = put(grads, height - left, left)
        return (grads,)

    total = jax.custom_vjp(forward)
    total.defvjp(lambda floats: (forward(floats), floats), backward)
    return total((logits, weights))


def cross_entropy(
    logits: Logits,
    labels: LabelsOrSets,
    *,
    weights: Weights = None,
    ignore: int = IGNORE,
    label_smoothing: float = 0.0,
) -> SumCount:
    """Cross entropy, of the softmax or, for binary and multi-label, of the sigmoids.

    label_smoothing: share in [0, 1) of the truth that is spread evenly over the classes.
    Count: weights of the pixels (of the entries under sigmoid). The sum alone is FCN's loss.
    """

    def sums(logits: Logits, labels: LabelsOrSets, weights: Weights) -> SumCount:
        pixels = read(logits, labels, weights, ignore)
        if not pixels.exclusive:
            truth = (1 - label_smoothing) * pixels.truth + label_smoothing / 2
            return pixels.sum(optax.sigmoid_binary_cross_entropy(pixels.logits, truth))
        truth = optax.smooth_labels(pixels.truth, label_smoothing)
        values = optax.softmax_cross_entropy(pixels.logits, truth)
        return (pixels.weights[..., 0] * values).sum(), pixels.weights[..., 0].sum()

    return summed(sums, logits, labels, weights)


def _by_entry(
    value: Callable[[Array, Array], Array],
    logits: Logits,
    labels: LabelsOrSets,
    weights: Weights,
    ignore: int,
) -> SumCount:
    """Sum of `value(logits, truth)` of the entries, and of their weights."""

    def sums(logits: Logits, labels: LabelsOrSets, weights: Weights) -> SumCount:
        pixels = read(logits, labels, weights, ignore)
        return pixels.sum(value(pixels.logits, pixels.truth))

    return summed(sums, logits, labels, weights)


def sigmoid(
    logits: Logits, labels: LabelsOrSets, *, weights: Weights = None, ignore: int = IGNORE
) -> SumCount:
    """Binary cross entropy of every class against the rest, also for multi-class labels.

    Count: weights of the entries (pixel, class).
    """
    return _by_entry(optax.sigmoid_binary_cross_entropy, logits, labels, weights, ignore)


def focal(
    logits: Logits,
    labels: LabelsOrSets,
    *,
    weights: Weights = None,
    ignore: int = IGNORE,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> SumCount:
    """Focal loss: -α (1 - p)^γ log p of every class against the rest (Lin et al. 2017, eq. 5).

    gamma: 0 is cross entropy; larger turns away from easy entries. alpha: weight in [0, 1] of the
    true class, 1 - alpha of the others. Count: weights of the entries; the paper, where most
    entries are anchors on background, divides by the number of true ones instead.
    """
    value = partial(optax.sigmoid_focal_loss, alpha=alpha, gamma=gamma)
    return _by_entry(value, logits, labels, weights, ignore)


def tversky(
    logits: Logits,
    labels: LabelsOrSets,
    *,
    weights: Weights = None,
    ignore: int = IGNORE,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> SumCount:
    """1 - TP / (TP + α FP + β FN) of probabilities, by image and class (Salehi et al. 2017).

    alpha, beta: cost of false and of missing pixels; the defaults are the paper's best. Count:
    the pairs of `Pixels.seen`. One pixel is added above and below, as in `optax.dice_loss`:
    the gradient then still says "smaller" where a class is truly empty.
    """

    def sums(logits: Logits, labels: LabelsOrSets, weights: Weights) -> tuple[Array, ...]:
        pixels = read(logits, labels, weights, ignore)
        probs, truth = pixels.probs(), pixels.truth
        parts = (probs * truth, probs * (1 - truth), (1 - probs) * truth)
        return *((pixels.weights * part).sum((1, 2)) for part in parts), pixels.seen()

    hit, false, missed, seen = summed(sums, logits, labels, weights)
    index = (hit + 1) / (hit + alpha * false + beta * missed + 1)
    return jnp.where(seen > 0, 1 - index, 0).sum(), (seen > 0).sum(dtype=jnp.float32)


def dice(
    logits: Logits, labels: LabelsOrSets, *, weights: Weights = None, ignore: int = IGNORE
) -> SumCount:
    """1 - 2 TP / (2 TP + FP + FN): Tversky at α = β = 1/2.

    Milletari et al. (2016, §3) square the probabilities in the denominator; this form does not.
    """
    return tversky(logits, labels, weights=weights, ignore=ignore, alpha=0.5, beta=0.5)


def jaccard(
    logits: Logits, labels: LabelsOrSets, *, weights: Weights = None, ignore: int = IGNORE
) -> SumCount:
    """1 - TP / (TP + FP + FN), soft intersection over union: Tversky at α = β = 1."""
    return tversky(logits, labels, weights=weights, ignore=ignore, alpha=1.0, beta=1.0)


def lovasz(
    logits: Logits, labels: LabelsOrSets, *, weights: Weights = None, ignore: int = IGNORE
) -> SumCount:
    """Lovász extension of 1 - IoU at the errors |truth - p|, per image (Berman et al. 2018, eq. 9).

    Count: the (image, class) pairs of `Pixels.seen`. The paper sorts the errors; here they fall
    into 4096 bins, 10 times faster on a CPU: at most 1/4096 from the sorted value, and equal to
    it where no bin holds both a true and a false pixel.
    """
    bins = 4096
    pixels = read(logits, labels, weights, ignore)
    flat = (pixels.weights.shape[0], -1, pixels.weights.shape[-1])
    truth, weights = pixels.truth.reshape(flat), pixels.weights.reshape(flat)
    errors = jnp.abs(truth - pixels.probs().reshape(flat))
    bin_of = bins - 1 - jnp.minimum(errors * bins, bins - 1).astype(jnp.int32)  # largest first
    cell = bin_of + bins * truth.astype(jnp.int32)

    slopes = jax.vmap(jax.vmap(_lovasz_slopes, (1, 1, None), 1), (0, 0, None))
    slope = jax.lax.stop_gradient(slopes(cell, weights, bins))
    per_region = (weights * slope * errors).sum(1)
    counted = pixels.seen() > 0
    return jnp.where(counted, per_region, 0).sum(), counted.sum(dtype=jnp.float32)


def _lovasz_slopes(
    cell: Integer[Array, "n"], weights: Float32[Array, "n"], bins: int
) -> Float32[Array, "n"]:
    """How much 1 - IoU grows per weight of a pixel when the pixels turn wrong bin by bin."""
    wrong, missed = jnp.zeros(2 * bins).at[cell].add(weights).reshape(2, bins)
    missed_to, wrong_to = jnp.cumsum(missed), jnp.cumsum(wrong)
    total = missed_to[-1]
    jaccard_to = (missed_to + wrong_to) / jnp.maximum(total + wrong_to, 1e-12)
    rise = jnp.diff(jaccard_to, prepend=0.0)
    # Within a bin the rise is shared by the partial derivatives at its middle, then made exact.
    union = jnp.maximum(total + wrong_to - wrong / 2, 1e-12)
    left = total - missed_to + missed / 2
    per_missed, per_wrong = 1 / union, jnp.where(total > 0, left / union, 1) / union
    shared = missed * per_missed + wrong * per_wrong
    scale = jnp.where(shared > 0, rise / jnp.where(shared > 0, shared, 1), 0)
    return jnp.concatenate([per_wrong * scale, per_missed * scale])[cell]


def smooth_l1(x: Float[Array, "*n"], beta: float) -> Float[Array, "*n"]:
    """Of each element: x² / 2β where |x| < β, else |x| - β / 2 (Girshick 2015, eq. 3: β = 1).

    |x| itself where β is 0.
    """
    return optax.huber_loss(x, delta=beta) / beta if beta else jnp.abs(x)


LOSSES = {
    "cross_entropy": cross_entropy,
    "sigmoid": sigmoid,
    "focal": focal,
    "tversky": tversky,
    "dice": dice,
    "jaccard": jaccard,
    "lovasz": lovasz,
}
"""Every loss by the name it has on the command line."""
