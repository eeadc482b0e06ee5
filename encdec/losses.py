"""Losses of pixels and of regions, each as (sum, count): a mean over devices is Σ sum / Σ count.

Every loss is `(logits, labels, *, weights=None, ignore=255) -> (sum, count)`, in float32 whatever
the logits are. What the labels look like says how the logits are read:

  labels (b, h, w), k > 1 logits    one class id per pixel: softmax (multi-class)
  labels (b, h, w), k = 1 logit     0 or 1 per pixel: sigmoid (binary)
  labels (b, h, w, k)               0 or 1 per pixel and class: sigmoid (multi-label)

An entry labelled `ignore` has weight 0, and an entry of weight 0 changes neither the value nor the
gradient, not even when its logits are infinite. `weights` are per pixel, never negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Float32, Integer

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

    def counted(self) -> Bool[Array, "b k"]:
        """The regions that a region loss averages: (image, class) pairs.

        Under softmax those whose class is present (Berman et al. 2018, §3.2): a false pixel of an
        absent class is already a missing pixel of a present one. Under sigmoid every pair that is
        labelled at all, or false pixels in an empty image would cost nothing.
        """
        seen = self.weights * self.truth if self.exclusive else self.weights
        return seen.sum((1, 2)) > 0


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
    pixels = read(logits, labels, weights, ignore)
    if not pixels.exclusive:
        truth = (1 - label_smoothing) * pixels.truth + label_smoothing / 2
        values = optax.sigmoid_binary_cross_entropy(pixels.logits, truth)
        return (pixels.weights * values).sum(), pixels.weights.sum()
    truth = optax.smooth_labels(pixels.truth, label_smoothing)
    values = optax.softmax_cross_entropy(pixels.logits, truth)
    return (pixels.weights[..., 0] * values).sum(), pixels.weights[..., 0].sum()


def sigmoid(
    logits: Logits, labels: LabelsOrSets, *, weights: Weights = None, ignore: int = IGNORE
) -> SumCount:
    """Binary cross entropy of every class against the rest, also for multi-class labels.

    Count: weights of the entries (pixel, class).
    """
    pixels = read(logits, labels, weights, ignore)
    values = optax.sigmoid_binary_cross_entropy(pixels.logits, pixels.truth)
    return (pixels.weights * values).sum(), pixels.weights.sum()


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
    pixels = read(logits, labels, weights, ignore)
    values = optax.sigmoid_focal_loss(pixels.logits, pixels.truth, alpha=alpha, gamma=gamma)
    return (pixels.weights * values).sum(), pixels.weights.sum()


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
    the pairs of `Pixels.counted`. One pixel is added above and below, as in `optax.dice_loss`:
    the gradient then still says "smaller" where a class is truly empty.
    """
    pixels = read(logits, labels, weights, ignore)
    probs, truth, axes = pixels.probs(), pixels.truth, (1, 2)
    hit = (pixels.weights * probs * truth).sum(axes)
    false = (pixels.weights * probs * (1 - truth)).sum(axes)
    missed = (pixels.weights * (1 - probs) * truth).sum(axes)
    index = (hit + 1) / (hit + alpha * false + beta * missed + 1)
    counted = pixels.counted()
    return jnp.where(counted, 1 - index, 0).sum(), counted.sum(dtype=jnp.float32)


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

    Count: the (image, class) pairs of `Pixels.counted`. The paper sorts the errors; here they fall
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
    counted = pixels.counted()
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
