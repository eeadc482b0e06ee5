"""Segmentation: what the logits of a pixel mean, what they cost, how they are scored."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, PRNGKeyArray, Shaped

from encdec import membranes, metrics, objects, parallel, roc
from encdec.arrays import Batch, Logits
from encdec.data.fit import Example
from encdec.errors import InputError
from encdec.layers import bilinear
from encdec.losses import LOSSES, SumCount, Weights
from encdec.tasks.task import Task

LossName = Literal["cross_entropy", "sigmoid", "focal", "tversky", "dice", "jaccard", "lovasz"]
Also = Literal["membranes", "objects", "roc"]
Outputs = dict[str, Float[Array, "b ..."]]
Sums = dict[str, Shaped[Array | np.ndarray, "..."]]

ALSO = {"membranes": membranes, "objects": objects, "roc": roc}


@dataclass(frozen=True)
class Segment(Task):
    """One class per pixel (multiclass), object or not (binary), any set of classes (multilabel).

    Logits may be smaller than the label: when the image is (by a whole factor, the net ran on a
    shrunk image) they are first upsampled by that factor, bilinearly; what the label still has
    more (an unpadded U-Net's margin) is cut off around the centre.

    Attributes:
      classes: logits per pixel; 1 in binary mode.
      mode: labels are (b, h, w) class ids, (b, h, w) 0 or 1, or (b, h, w, classes) 0 or 1.
      losses: names of `encdec.losses` and their coefficients, added up.
      class_weights: weight of a pixel by its true class (background, object in binary mode); none
        if empty. Not for multilabel, where a pixel has no one class.
      label_smoothing: share in [0, 1) of the truth spread over all classes, in cross_entropy.
      reduction: "mean" over the pixels' weights; or "sum" over an image's pixels, averaged over
        images: FCN's loss, for rates of about 1e-10.
      auxiliary: coefficient of the loss of every other output that a model has in training.
      tolerance: pixels within which a boundary counts as found.
      also: what else to score, on the host, image by image; for two classes, of which 1 is the
        cell, the object or the vessel.
    """

    classes: int
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    losses: tuple[tuple[LossName, float], ...] = (("cross_entropy", 1.0),)
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    auxiliary: float = 0.5
    tolerance: int = 2
    also: tuple[Also, ...] = ()

    def __post_init__(self) -> None:
        least = {"multiclass": 2, "binary": 1, "multilabel": 1}[self.mode]
        if self.classes < least or (self.mode == "binary" and self.classes > 1):
            wanted = "classes=1" if self.mode == "binary" else f"classes of {least} or more"
            hint = "; for one object against background set mode='binary'"
            raise InputError(
                f"a {self.mode} task wants {wanted}, got {self.classes}"
                + (hint if self.mode == "multiclass" else "")
            )
        names = [name for name, _ in self.losses]
        if not names or len(set(names)) < len(names) or set(names) - set(LOSSES):
            raise InputError(
                f"losses wants one or more of {', '.join(LOSSES)}, each once, got {names}"
            )
        sides = {"multiclass": self.classes, "binary": 2, "multilabel": 0}[self.mode]
        if self.class_weights and len(self.class_weights) != sides:
            raise InputError(
                f"class_weights of a {self.mode} task wants {sides or 'no'} numbers, "
                f"got {len(self.class_weights)}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing wants 0 <= s < 1, got {self.label_smoothing}")
        if self.tolerance < 0:
            raise InputError(f"tolerance wants 0 or more pixels, got {self.tolerance}")
        if len(set(self.also)) < len(self.also) or set(self.also) - set(ALSO):
            raise InputError(f"also wants some of {', '.join(ALSO)}, each once, got {self.also}")
        if self.also and sides != 2:
            raise InputError(
                f"also wants two classes, got a {self.mode} task of {self.classes}: "
                "set classes=2, or mode='binary' and classes=1"
            )

    def fits(self, classes: int) -> bool:
        """Whether a data set of so many classes is one for this task."""
        return classes == self.classes or self.mode != "multiclass"

    def loss(
        self, outputs: Outputs, batch: Batch, key: PRNGKeyArray | None = None
    ) -> dict[str, SumCount]:
        """(sum, count) by name, the sum times its coefficient; batch["weight"] weighs pixels.

        Nothing is drawn: `key` is idle.

        Names of the other outputs' losses begin with that output's: "aux/cross_entropy".
        """
        shares = {}
        for output in sorted(outputs):
            main = output == "logits"
            logits, labels, weights = align(outputs[output], batch)
            weights = self._weigh(labels, weights)
            for name, coefficient in self.losses:
                extra = {"label_smoothing": self.label_smoothing} if name == "cross_entropy" else {}
                total, count = LOSSES[name](logits, labels, weights=weights, **extra)
                if self.reduction == "sum":
                    count = jnp.float32(len(labels))
                coefficient *= 1 if main else self.auxiliary
                shares[name if main else f"{output}/{name}"] = (coefficient * total, count)
        return shares

    def _weigh(self, labels: Array, weights: Weights) -> Weights:
        """The weights of the pixels times those of their true classes."""
        if not self.class_weights:
            return weights
        last = len(self.class_weights) - 1
        by_class = jnp.asarray(self.class_weights)[jnp.clip(labels, 0, last)]
        return by_class if weights is None else weights * by_class

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Int32[Array, "..."]]:
        """Integer sums of all devices, to add over batches: confusion matrix, boundary matches."""
        logits, labels, _ = align(outputs["logits"], batch)
        guess = self.decode({"logits": logits})
        if self.mode == "multilabel":
            table, sides = metrics.confusions(guess, labels), self.classes
        else:
            sides = 2 if self.mode == "binary" else self.classes
            table = metrics.confusion(guess, labels, sides)
        edges = metrics.boundary(guess, labels, sides, self.tolerance)
        return parallel.psum({"confusion": table, "boundary": edges})

    def each(self, outputs: Outputs, batch: Batch) -> dict[str, Int32[Array, "_ k k"]]:
        """The confusion matrix of each image; nothing of a multilabel task.

        XLA counts the pixels once for this and `measure`.
        """
        if self.mode == "multilabel":
            return {}
        logits, labels, _ = align(outputs["logits"], batch)
        guess, sides = self.decode({"logits": logits}), 2 if self.mode == "binary" else self.classes
        return parallel.gather({"images": metrics.confusion_of_each(guess, labels, sides)})

    def score_of(self, image: Integer[np.ndarray, "k k"]) -> float:
        """Mean IoU over the classes that the image has, or is said to have."""
        return metrics.scores({"confusion": image})[self.image_by]

    def decode(self, outputs: Outputs) -> Int32[Array, "b h w *k"]:
        """Class ids (b, h, w), 0 or 1 if binary; 0 or 1 per class, (b, h, w, k), if multilabel."""
        logits = outputs["logits"]
        if self.mode == "multiclass":
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        on = (logits > 0).astype(jnp.int32)
        return on[..., 0] if self.mode == "binary" else on

    def probabilities(
        self, logits: Float[Array | np.ndarray, "*b h w k"]
    ) -> Float[Array, "*b h w k"]:
        """Softmax of the logits; a sigmoid for each if binary or multilabel."""
        kind = jax.nn.softmax if self.mode == "multiclass" else jax.nn.sigmoid
        return kind(logits)

    def measure_image(
        self, probs: Float[np.ndarray, "h w k"], example: Example
    ) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Sums of `also`, to add over images and hosts; float64 and int64, so not on a device.

        Args:
          probs: softmax of the classes, or the sigmoid (k = 1) if binary, at the label's size.
          example: "label"; "instances" too for objects.

        Returns:
          the sums of each module in `also`, its name before theirs: "membranes/rand".

        Raises:
          InputError: probs of another size, or objects without instances.
        """
        label = example["label"]
        if probs.shape[:2] != label.shape:
            raise InputError(
                f"probs want the label's size {label.shape}, got {probs.shape[:2]}: "
                "predict the whole image first"
            )
        sums = {kind: ALSO[kind].measure(probs[..., -1], example) for kind in self.also}
        return {f"{kind}/{name}": x for kind, own in sums.items() for name, x in own.items()}

    def scores(self, sums: Sums) -> dict[str, float]:
        """Scores in [0, 1] of added-up sums, on the host: `metrics.scores`, then those of `also`.

        What `measure_image` has not been summed for is left out.
        """
        result = metrics.scores({name: x for name, x in sums.items() if "/" not in name})
        for kind in self.also:
            start = f"{kind}/"
            own = {n.removeprefix(start): x for n, x in sums.items() if n.startswith(start)}
            result |= ALSO[kind].scores(own) if own else {}
        return result


def align(
    logits: Logits, batch: Batch
) -> tuple[Float[Array, "b y x k"], Integer[Array, "b y x *k"], Float[Array, "b y x"] | None]:
    """Logits, labels and pixel weights (or None) of one size: upsampled, then centre-cropped."""
    labels, weights = batch["label"], batch.get("weight")
    shrink = labels.shape[1] // batch["image"].shape[1]
    if shrink > 1:
        logits = bilinear(logits, shrink)
    h, w = logits.shape[1:3]
    if h > labels.shape[1] or w > labels.shape[2]:
        raise InputError(
            f"logits want at most the label's size {labels.shape[1:3]}, got {(h, w)}: "
            "crop the outputs of the net to its input"
        )
    top, left = (labels.shape[1] - h) // 2, (labels.shape[2] - w) // 2
    labels = labels[:, top : top + h, left : left + w]
    if weights is not None:
        weights = weights[:, top : top + h, left : left + w]
    return logits, labels, weights
