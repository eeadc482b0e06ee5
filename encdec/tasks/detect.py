"""Detection by anchors: which are objects, what their classes and boxes cost, what is found."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from encdec import average_precision, boxes, parallel
from encdec.anchors import hardest, match, sample, spare_crowds
from encdec.arrays import Batch
from encdec.average_precision import Objects, Record
from encdec.boxes import Detections
from encdec.errors import InputError
from encdec.losses import SumCount, smooth_l1
from encdec.tasks.task import Task

Outputs = dict[str, Any]
"""By stride "class" (b, a, k), logits; "box" (b, a, 4), deltas; "anchors" (a, 4)."""

Label = Int32[Array, "a"]
"""Of each anchor: 1 object, 0 background, -1 neither."""

Cost = tuple[Float[Array, ""], Float[Array, ""], Bool[Array, "a"]]
"""Sum over an image's anchors; the count to divide it by, and the boxes' loss; whose boxes cost."""


class Classify:
    """What the classes of an image's anchors cost: `Sampled`, `Focal` or `Mined`."""

    def __call__(
        self, key: PRNGKeyArray, logits: Float[Array, "a k"], classes: Label, label: Label
    ) -> Cost:
        raise NotImplementedError

    def probs(self, logits: Float[Array, "b a k"]) -> Float[Array, "b a _"]:
        """Of the classes of objects."""
        return jax.nn.sigmoid(logits)

    background: ClassVar[int] = 0
    """Logits of an anchor beside those of the classes."""

    each_class: ClassVar[bool] = False
    """Candidates are the best of every class, not of every level."""


@dataclass(frozen=True)
class Sampled(Classify):
    """Sigmoid cross entropy of a random sample of anchors (Faster R-CNN §3.1.2, FPN §4.1).

    Attributes:
      number: anchors of an image that are drawn.
      share: of them that are objects, at most.
    """

    number: int = 256
    share: float = 0.5

    def __call__(
        self, key: PRNGKeyArray, logits: Float[Array, "a k"], classes: Label, label: Label
    ) -> Cost:
        drawn = sample(key, label, self.number, self.share)
        losses = optax.sigmoid_binary_cross_entropy(logits, truth(logits, classes, label))
        count = drawn.sum().astype(jnp.float32)
        return jnp.where(drawn, losses.sum(-1), 0).sum(), count, drawn & (label == 1)


@dataclass(frozen=True)
class Focal(Classify):
    """Focal loss of all anchors, over the number of objects (RetinaNet §3.2, §4.1).

    Attributes:
      alpha: weight of objects; 1 - alpha that of background.
      gamma: how much less costs what is well classified.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, key: PRNGKeyArray, logits: Float[Array, "a k"], classes: Label, label: Label
    ) -> Cost:
        losses = optax.sigmoid_focal_loss(
            logits, truth(logits, classes, label), alpha=self.alpha, gamma=self.gamma
        )
        total = jnp.where(label >= 0, losses.sum(-1), 0).sum()
        return total, at_least_one(label == 1), label == 1


@dataclass(frozen=True)
class Mined(Classify):
    """Softmax cross entropy of objects and of the hardest background, over the objects (SSD §2.2).

    Attributes:
      ratio: background anchors for each object.
    """

    ratio: float = 3.0
    background: ClassVar[int] = 1
    each_class: ClassVar[bool] = True

    def __call__(
        self, key: PRNGKeyArray, logits: Float[Array, "a k"], classes: Label, label: Label
    ) -> Cost:
        kinds = jnp.where(label == 1, classes + 1, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, kinds)
        counted = hardest(jax.lax.stop_gradient(losses), label, self.ratio)
        return jnp.where(counted, losses, 0).sum(), at_least_one(label == 1), label == 1

    def probs(self, logits: Float[Array, "b a k"]) -> Float[Array, "b a _"]:
        """Of the classes, without the background, 0."""
        return jax.nn.softmax(logits)[..., 1:]


def truth(logits: Float[Array, "a k"], classes: Label, label: Label) -> Float[Array, "a k"]:
    """1 for the class of an object, else 0."""
    return jax.nn.one_hot(classes, logits.shape[-1]) * (label == 1)[:, None]


def at_least_one(objects: Bool[Array, "a"]) -> Float[Array, ""]:
    """How many; 1 for an image without, whose background is to be learned too."""
    return jnp.maximum(objects.sum(), 1).astype(jnp.float32)


@dataclass(frozen=True)
class Detect(Task):
    """A class and a box for every anchor of a pyramid: RetinaNet, SSD; and RPN, see `Propose`.

    Attributes:
      classes: of objects, without the background.
      classify: what classes cost: `Sampled` in RPN, `Focal` in RetinaNet, `Mined` in SSD.
      positive, negative: an anchor is an object from this IoU on, background below that one, and
        neither in between.
      best: the anchors that overlap a truth box most are objects whatever their IoU: all of equal
        IoU ("ties": RPN, RetinaNet), the "first" alone (SSD), or "none".
      weights: of the deltas dx, dy, dw, dh.
      beta: of smooth L1, the loss of deltas; 0: L1, as in torchvision's RetinaNet.
      threshold: least probability of a detection.
      overlap: IoU above which the lower of two detections of a class is dropped.
      candidates: the best of every level that are looked at; in SSD of every class.
      number: detections of an image.
    """

    classes: int
    classify: Classify = Focal()
    positive: float = 0.5
    negative: float = 0.4
    best: Literal["ties", "first", "none"] = "ties"
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    beta: float = 0.0
    threshold: float = 0.05
    overlap: float = 0.5
    candidates: int = 1000
    number: int = 100
    keys: ClassVar[tuple[str, ...]] = ("image", "boxes", "areas")
    best_by: ClassVar[str] = "ap"
    image_by: ClassVar[str] = "f1"
    by_class: ClassVar[str] = "ap50"

    def __post_init__(self) -> None:
        if self.classes < 1 or self.candidates < 1 or self.number < 1:
            raise InputError(
                "a detector wants 1 or more classes, candidates and detections; got "
                f"{self.classes}, {self.candidates} and {self.number}"
            )
        if not 0 <= self.negative <= self.positive <= 1:
            raise InputError(
                f"wanted 0 <= negative <= positive <= 1; got {self.negative} and {self.positive}"
            )
        if self.best not in ("ties", "first", "none"):
            raise InputError(f'best wants "ties", "first" or "none"; got {self.best!r}')

    @property
    def logits(self) -> int:
        """Classes of the head."""
        return self.classes + self.classify.background

    def loss(self, outputs: Outputs, batch: Batch, key: PRNGKeyArray) -> dict[str, SumCount]:
        """(sum, count) of "class" and "box"; what is drawn follows from the key and "index"."""
        logits, deltas, anchors = (joined(outputs[part]) for part in ("class", "box", "anchors"))
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])

        def one(key: Array, logits: Array, deltas: Array, objects: Batch) -> tuple[Array, ...]:
            index, label = self.assign(anchors, objects)
            classes = objects["classes"][index] * (self.classes > 1)  # of proposals all are 0
            cost, count, chosen = self.classify(key, logits.astype(jnp.float32), classes, label)
            wanted = boxes.encode(objects["boxes"][index], anchors, self.weights)
            moved = smooth_l1(deltas.astype(jnp.float32) - wanted, self.beta).sum(-1)
            return cost, jnp.where(chosen, moved, 0).sum(), count.astype(jnp.float32)

        objects = {name: batch[name] for name in ("boxes", "classes", "box_mask", "crowd")}
        cost, moved, count = (x.sum() for x in jax.vmap(one)(keys, logits, deltas, objects))
        return {"class": (cost, count), "box": (moved, count)}

    def assign(
        self, anchors: Float[Array, "a 4"], objects: dict[str, Array]
    ) -> tuple[Int32[Array, "a"], Label]:
        """Of each anchor the object that it overlaps most, and its label.

        Background of which more than half lies in a crowd is neither.
        """
        real = objects["box_mask"] & ~objects["crowd"]
        found = boxes.iou(anchors, objects["boxes"])
        rule = {"best": self.best == "ties", "exclusive": self.best == "first"}
        index, label = match(found, real, high=self.positive, low=self.negative, **rule)
        crowd = objects["box_mask"] & objects["crowd"]
        return index, spare_crowds(label, boxes.overlap(anchors, objects["boxes"]), crowd)

    def decode(self, outputs: Outputs, size: Int32[Array, "b 2"]) -> Detections:
        """The best `number` of every image, best first; see `encdec.boxes.detections`.

        size: rows and columns of each image before it was padded: boxes are cut there.
        """
        found, probs = {}, {}
        for stride, anchors in outputs["anchors"].items():
            deltas, logits = (
                outputs[part][stride].astype(jnp.float32) for part in ("box", "class")
            )
            found[stride] = boxes.clip(boxes.decode(deltas, anchors[None], self.weights), size)
            probs[stride] = self.classify.probs(logits)
        return self.chosen(found, probs)

    def chosen(self, found: dict[int, Any], probs: dict[int, Any]) -> Detections:
        """The best of these boxes and probabilities by stride."""
        every = joined(found)
        how = {"overlap": self.overlap, "candidates": self.candidates, "number": self.number}
        how |= {"threshold": self.threshold}
        if self.classify.each_class:
            return boxes.detections_by_class(every, joined(probs), **how)
        real, levels = jnp.ones(every.shape[:2], bool), (found[s].shape[1] for s in sorted(found))
        return boxes.detections(every[:, :, None], joined(probs), real, levels=tuple(levels), **how)

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Detections of the images of this batch, on all devices."""
        return parallel.gather(self.decode(outputs, batch["size"]))

    def record(self, found: Objects, truth: Objects) -> Record:
        """What the scores keep of one image."""
        return average_precision.measure(found, truth)

    def score_of(self, image: Record) -> float:
        """F1: of one image average precision overlooks what is false of a class that is absent."""
        return average_precision.f1(image)

    def scores(self, records: list[Record]) -> dict[str, float]:
        """COCO's average precision and recall; see `encdec.average_precision`."""
        return average_precision.scores(records, self.classes, self.number)


@dataclass(frozen=True)
class Propose(Detect):
    """Objects of whatever class (Ren et al. 2015, §3.1; FPN §4.1): an RPN alone, or in an `RCNN`.

    As `Detect`, but any data set fits, no score is too low, proposals suppress those of their own
    level alone, and the scores are recalls.
    """

    classes: int = 1
    classify: Classify = Sampled()
    positive: float = 0.7
    negative: float = 0.3
    beta: float = 1 / 9
    overlap: float = 0.7
    number: int = 1000

    @property
    def best_by(self) -> str:
        """The average recall."""
        return f"ar{self.number}"

    @property
    def image_by(self) -> str:
        """The same: most proposals are false."""
        return self.best_by

    def score_of(self, image: Record) -> float:
        return self.scores([image])[self.image_by]

    def fits(self, classes: int) -> bool:
        """Any data set is one for proposals."""
        return True

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Its one class."""
        return classes if len(classes) == 1 else ("object",)

    def chosen(self, found: dict[int, Any], probs: dict[int, Any]) -> Detections:
        strides = sorted(found)
        best = boxes.proposals(
            [found[s] for s in strides],
            [probs[s][..., 0] for s in strides],
            overlap=self.overlap,
            candidates=self.candidates,
            number=self.number,
            smallest=1e-3,
        )
        return best | {"classes": jnp.zeros(best["scores"].shape, jnp.int32)}

    def record(self, found: Objects, truth: Objects) -> Record:
        return average_precision.measure(found, truth, agnostic=True)


def joined(levels: dict[int, Float[Array, "*b _ d"]]) -> Float[Array, "*b n d"]:
    """All levels in one list, the finest first."""
    return jnp.concatenate([levels[stride] for stride in sorted(levels)], -2)
