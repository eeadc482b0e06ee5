"""Two-stage detection: what proposals and regions cost, what is found (FPN §4; Mask R-CNN §3)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from encdec import average_precision, parallel
from encdec.arrays import Batch
from encdec.average_precision import Objects, Record
from encdec.boxes import Detections
from encdec.errors import InputError
from encdec.losses import SumCount, smooth_l1
from encdec.tasks.detect import Detect, Propose
from encdec.tasks.task import Task


@dataclass(frozen=True)
class TwoStage(Task):
    """Losses of an `RCNN` head: the RPN's, and class, box and mask of the regions it drew.

    Attributes:
      classes: of objects.
      proposals: the RPN's task.
      beta: of smooth L1, the loss of the regions' deltas.
      masks: the head has masks too, and the data instances.
    """

    classes: int
    proposals: Detect = Propose()
    beta: float = 1.0
    masks: bool = False
    samples: ClassVar[bool] = True
    best_by: ClassVar[str] = "ap"
    image_by: ClassVar[str] = "f1"
    by_class: ClassVar[str] = "ap50"

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise InputError(f"a detector wants 1 or more classes of objects; got {self.classes}")

    @property
    def keys(self) -> tuple[str, ...]:
        """What it needs of an example."""
        return ("image", "boxes", "areas", *["instances"] * self.masks)

    @property
    def logits(self) -> int:
        """Classes of the head's regions: the background, 0, too."""
        return self.classes + 1

    def loss(self, outputs: dict[str, Any], batch: Batch, key: PRNGKeyArray) -> dict[str, SumCount]:
        """(sum, count) of "rpn_class", "rpn_box", "class", "box" and, with masks, "mask".

        Class and box are averaged over all regions that were drawn, masks over their pixels.
        """
        rpn = self.proposals.loss(outputs, batch, key) if "anchors" in outputs else {}
        shares = {f"rpn_{name}": share for name, share in rpn.items()}
        label = outputs["region_label"]
        drawn, objects, kind = label >= 0, label > 0, jnp.maximum(label, 0)
        logits = outputs["region_class"].astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, kind)
        count = drawn.sum().astype(jnp.float32)
        shares["class"] = (jnp.where(drawn, losses, 0).sum(), count)
        own = jnp.take_along_axis(outputs["region_box"], kind[..., None, None], 2)[:, :, 0]
        moved = smooth_l1(own.astype(jnp.float32) - outputs["region_delta"], self.beta).sum(-1)
        shares["box"] = (jnp.where(objects, moved, 0).sum(), count)
        if self.masks:
            shares["mask"] = mask_loss(outputs, batch["instances"])
        return shares

    def measure(self, outputs: dict[str, Any], batch: Batch) -> dict[str, Array]:
        """Detections of the images of this batch, on all devices."""
        return parallel.gather(self.decode(outputs, batch["size"]))

    def decode(self, outputs: dict[str, Any], size: Int32[Array, "b 2"]) -> Detections:
        """The head's own detections; it knows the size already."""
        names = ("boxes", "scores", "classes", "valid", "masks")
        return {name: outputs[name] for name in names if name in outputs}

    def record(self, found: Objects, truth: Objects) -> dict[str, Record]:
        """What the scores keep of one image, by what overlaps."""
        kinds = ("boxes", "masks") if self.masks else ("boxes",)
        return {by: average_precision.measure(found, truth, by=by) for by in kinds}

    def score_of(self, image: dict[str, Record]) -> float:
        """F1 by boxes, as `Detect`'s."""
        return average_precision.f1(image["boxes"])

    def scores(self, records: list[dict[str, Record]]) -> dict[str, float]:
        """COCO's average precision and recall, those by masks as "mask_ap", …; see
        `encdec.average_precision`."""
        scores = {}
        for by, prefix in (("boxes", ""), ("masks", "mask_"))[: 1 + self.masks]:
            own = average_precision.scores([record[by] for record in records], self.classes)
            scores |= {prefix + name: value for name, value in own.items()}
        return scores


def mask_loss(outputs: dict[str, Any], instances: Int32[Array, "b h w"]) -> SumCount:
    """Sigmoid cross entropy of the true class's mask, of regions that are objects."""
    logits = outputs["region_mask"].astype(jnp.float32)
    kind = jnp.maximum(outputs["region_label"][:, : logits.shape[1]], 0)
    own = jnp.take_along_axis(logits, kind[:, :, None, None, None], -1)[..., 0]
    truth = jax.vmap(cut)(instances, outputs["region"], outputs["region_id"], own)
    objects = (outputs["region_id"] > 0)[..., None, None]
    losses = optax.sigmoid_binary_cross_entropy(own, truth.astype(jnp.float32))
    count = objects.sum() * own.shape[-1] * own.shape[-2]
    return jnp.where(objects, losses, 0).sum(), count.astype(jnp.float32)


def cut(
    instances: Int32[Array, "h w"],
    regions: Float[Array, "n 4"],
    ids: Int32[Array, "n"],
    like: Float[Array, "n p q"],
) -> Bool[Array, "n p q"]:
    """Where each region's own instance is, read at the middles of p x q cells; outside the image
    it is not."""
    places, inside = [], []
    for axis, cells in ((0, like.shape[1]), (1, like.shape[2])):
        low, high = regions[:, axis, None], regions[:, axis + 2, None]
        at = low + (jnp.arange(cells) + 0.5)[None] / cells * (high - low)
        inside.append((at >= 0) & (at < instances.shape[axis]))
        places.append(jnp.clip(at.astype(jnp.int32), 0, instances.shape[axis] - 1))
    rows, columns = places
    own = instances[rows[:, :, None], columns[:, None]] == ids[:, None, None]
    return own & inside[0][:, :, None] & inside[1][:, None]
