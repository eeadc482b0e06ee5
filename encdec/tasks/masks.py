"""Mask proposals: which cells are to find which object, what that costs, what is found.

Lin et al. 2017 (FPN), §6 and appendix A, after DeepMask (Pinheiro et al. 2015).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from encdec import average_precision, boxes, parallel
from encdec.anchors import draw, spare_crowds
from encdec.arrays import Batch
from encdec.average_precision import Objects, Record
from encdec.boxes import Detections
from encdec.errors import InputError
from encdec.losses import SumCount
from encdec.tasks.detect import Label, joined
from encdec.tasks.task import Task
from encdec.tasks.two_stage import cut

Outputs = dict[str, Any]
"""By stride "class" (b, a, 1) and "mask" (b, a, s, s), logits; "anchors" (a, 4), squares."""


@dataclass(frozen=True)
class Masks(Task):
    """A score and a mask for every cell and kind of a pyramid, of objects of whatever class.

    The scale of an object is the longer side of its box; it belongs to the anchors of the nearest
    scale, in log space, and there to those whose middle is at most a cell from its own, up or down
    and left or right. These learn its mask, over their square and `padding`; all others are
    background and learn the score alone.

    Attributes:
      padding: by how much the square of a mask is larger than the anchor.
      drawn: anchors of an image that are trained on.
      share: of them that have an object, at most: 1:3 is 0.25.
      weight: of the masks' loss against the scores'.
      number: proposals of an image; no other is suppressed by one of them.
    """

    padding: float = 0.25
    drawn: int = 128
    share: float = 0.25
    weight: float = 10.0
    number: int = 1000
    classes: ClassVar[int] = 1
    keys: ClassVar[tuple[str, ...]] = ("image", "boxes", "areas", "instances")
    by_class: ClassVar[str] = "ap50"

    def __post_init__(self) -> None:
        if self.padding < 0 or self.number < 1 or self.drawn < 1 or not 0 < self.share <= 1:
            raise InputError(
                "mask proposals want no negative padding, 1 or more proposals and drawn anchors, "
                f"and a share of them above 0 and up to 1; got {self.padding}, {self.number}, "
                f"{self.drawn} and {self.share}"
            )

    @property
    def best_by(self) -> str:
        """The average recall."""
        return f"ar{self.number}"

    def fits(self, classes: int) -> bool:
        """Any data set is one for proposals."""
        return True

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Its one class."""
        return classes if len(classes) == 1 else ("object",)

    def loss(self, outputs: Outputs, batch: Batch, key: PRNGKeyArray) -> dict[str, SumCount]:
        """(sum, count) of "class", over the anchors drawn, and "mask", over pixels of those with
        an object, the sum times `weight`."""
        anchors = joined(outputs["anchors"])
        windows, near = self.windows(anchors), reaches(outputs["anchors"])
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        most = max(1, int(self.drawn * self.share))

        def one(key: Array, logits: Array, masks: Array, truth: Batch) -> tuple[Array, ...]:
            index, label = self.assign(anchors, near, truth)
            places, drawn = draw(key, label, self.drawn, self.share)
            label = label[places]
            wrong = optax.sigmoid_binary_cross_entropy(logits[places, 0], label.astype(jnp.float32))
            # Those with an object come first, and are at most so many.
            first, objects = places[:most], drawn[:most] & (label[:most] == 1)
            ids = jnp.where(objects, truth["ids"][index[first]], 0)
            objects = (ids > 0)[:, None, None]
            mine = cut(truth["instances"], windows[first], ids, masks[first])
            pixels = optax.sigmoid_binary_cross_entropy(masks[first], mine.astype(jnp.float32))
            parts = (jnp.where(drawn, wrong, 0), drawn, jnp.where(objects, pixels, 0))
            return *(part.sum() for part in parts), objects.sum() * pixels[0].size

        names = ("boxes", "box_mask", "crowd", "ids", "instances")
        truth = {name: batch[name] for name in names}
        logits, masks = (stacked(outputs[part]).astype(jnp.float32) for part in ("class", "mask"))
        wrong, drawn, missed, pixels = (
            x.sum().astype(jnp.float32) for x in jax.vmap(one)(keys, logits, masks, truth)
        )
        return {"class": (wrong, drawn), "mask": (self.weight * missed, pixels)}

    def windows(self, anchors: Float[Array, "a 4"]) -> Float[Array, "a 4"]:
        """The squares that the masks of these anchors fill."""
        margin = (anchors[:, 2:] - anchors[:, :2]) * (self.padding / 2)
        return anchors + jnp.concatenate([-margin, margin], -1)

    def assign(
        self, anchors: Float[Array, "a 4"], near: Float[Array, "a"], truth: dict[str, Array]
    ) -> tuple[Int32[Array, "a"], Label]:
        """Of each anchor the object that is nearest, of those that belong to it, and its label.

        Crowds are neither object nor background, nor is what lies in one by more than half.

        Args:
          near: distance in pixels, along each axis, up to which an object belongs to an anchor.
        """
        box, real = truth["boxes"], truth["box_mask"]
        longer = jnp.maximum((box[:, 2:] - box[:, :2]).max(-1), 1)
        apart = jnp.abs(jnp.log((anchors[:, 2] - anchors[:, 0])[:, None] / longer[None]))
        scaled = apart <= apart.min(0)[None] + 1e-3  # but for rounding, equal anchors are equal
        middle, place = ((b[:, :2] + b[:, 2:]) / 2 for b in (anchors, box))
        distance = jnp.abs(middle[:, None] - place[None]).max(-1)
        own = scaled & (distance <= near[:, None]) & real[None]
        index = jnp.where(own, distance, jnp.inf).argmin(1).astype(jnp.int32)
        crowd = real & truth["crowd"]
        label = jnp.where(own.any(1), jnp.where(crowd[index], -1, 1), 0).astype(jnp.int32)
        return index, spare_crowds(label, boxes.overlap(anchors, box), crowd)

    def decode(self, outputs: Outputs, size: Int32[Array, "b 2"]) -> Detections:
        """The `number` anchors of the highest score in every image, best first.

        Of each "masks" (b, n, s, s), probabilities; "windows" (b, n, 4), the squares in pixels that
        they fill; and "boxes" (b, n, 4), around what is in them above 0.5, cut to the image.
        """
        anchors = joined(outputs["anchors"])
        scores = jax.nn.sigmoid(stacked(outputs["class"]).astype(jnp.float32))[..., 0]
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2
        inside = (middle[None] < size[:, None]).all(-1)  # an image is padded below and at the right
        best, valid = boxes.top(scores, inside, self.number)
        masks = jax.nn.sigmoid(boxes.take(stacked(outputs["mask"]), best).astype(jnp.float32))
        windows = self.windows(anchors)[best]
        return {
            "boxes": boxes.clip(around(masks > 0.5, windows), size),
            "scores": boxes.take(scores, best),
            "classes": jnp.zeros(best.shape, jnp.int32),
            "valid": valid,
            "masks": masks,
            "windows": windows,
        }

    def measure(self, outputs: Outputs, batch: Batch) -> Detections:
        """Proposals in the images of this batch, on all devices."""
        return parallel.gather(self.decode(outputs, batch["size"]))

    def record(self, found: Objects, truth: Objects) -> Record:
        """What the scores keep of one image: its masks matched with the true ones."""
        return average_precision.measure(found, truth, by="masks", agnostic=True)

    def scores(self, records: list[Record]) -> dict[str, float]:
        """COCO's average recall (and precision) by masks; see `encdec.average_precision`."""
        every = average_precision.scores(records, 1, self.number)
        return {name: score for name, score in every.items() if "/" not in name}


def stacked(levels: dict[int, Float[Array, "b _ ..."]]) -> Float[Array, "b n ..."]:
    """The rows of all levels in one list, the finest first."""
    return jnp.concatenate([levels[stride] for stride in sorted(levels)], 1)


def reaches(anchors: dict[int, Float[Array, "_ 4"]]) -> Float[Array, "a"]:
    """The stride of every anchor, the finest first: an object is at most a cell away."""
    return jnp.concatenate([jnp.full(len(anchors[s]), float(s)) for s in sorted(anchors)])


def around(inside: Bool[Array, "b n s s"], windows: Float[Array, "b n 4"]) -> Float[Array, "b n 4"]:
    """Boxes around the cells that are true, in grids that fill the windows."""
    ends, cells = [], inside.shape[-1]
    for axis in (-1, -2):  # which rows, then which columns, have some
        some = inside.any(axis)
        first, last = some.argmax(-1), cells - some[..., ::-1].argmax(-1)
        ends.append((first, jnp.where(some.any(-1), last, first)))
    (top, bottom), (left, right) = ends
    share = jnp.stack([top, left, bottom, right], -1) / cells
    corner, extent = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return jnp.tile(corner, 2) + share * jnp.tile(extent, 2)
