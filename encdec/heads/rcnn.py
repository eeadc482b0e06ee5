"""Faster R-CNN on a pyramid: regions are proposed on every level, then classified, moved, masked.

Ren et al. 2015 (Faster R-CNN) with the pyramid of Lin et al. 2017, §4; masks: He et al. 2017.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int32

from encdec import boxes
from encdec.anchors import draw, match, spare_crowds
from encdec.arrays import Batch, Dtype, Maps
from encdec.errors import InputError
from encdec.heads.dense import Dense, rpn
from encdec.heads.regions import MaskHead, TwoFC
from encdec.regions import roi_align, roi_max_pool

Regions = Float[Array, "b n 4"]
Found = dict[str, Array]


class RCNN(nn.Module):
    """An RPN on every level; its best proposals, pooled from the level of their size, by one head.

    Attributes:
      rpn: the head that proposes: objectness and deltas of every anchor; None: the model's
        proposer does (Fast R-CNN).
      box: class and box of a pooled region.
      mask: mask of a pooled region, or None.
      strides: levels that regions are pooled from; the RPN sees them all.
      pool: "max", RoI max pooling, as in the paper; or "align", RoIAlign.
      size, mask_size: cells of a pooled region, of one to be masked.
      canonical: side in pixels of a region that is pooled from stride 16 (FPN, equation 1).
      candidates: best proposals of a level that suppression sees, in training and in evaluation.
      proposals: those of all levels that are left after it, likewise.
      suppress: IoU above which the lower of two proposals of a level is dropped.
      number: regions of an image that are trained on.
      share: of them that are objects, at most.
      positive: IoU with a truth box from which a region is an object; below it, it is background.
      weights: of the deltas dx, dy, dw, dh of regions.
      threshold: least probability of a detection.
      overlap: IoU above which the lower of two detections of a class is dropped.
      pairs: best (region, class) pairs that the last suppression sees.
      detections: of an image.
    """

    rpn: Dense | None = rpn()
    box: TwoFC = TwoFC()
    mask: MaskHead | None = None
    strides: tuple[int, ...] = (4, 8, 16, 32)
    pool: Literal["max", "align"] = "max"
    size: int = 7
    mask_size: int = 14
    canonical: float = 224.0
    candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (2000, 1000)
    suppress: float = 0.7
    number: int = 512
    share: float = 0.25
    positive: float = 0.5
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    threshold: float = 0.05
    overlap: float = 0.5
    pairs: int = 1000
    detections: int = 100
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        for part in ("rpn", "box", "mask") if self.dtype else ():
            if (own := getattr(self, part)) is not None:
                object.__setattr__(self, part, own.clone(parent=None, dtype=self.dtype))
        if self.mask is not None and self.mask.classes != self.box.classes:
            raise InputError(
                f"box and mask want the same classes; got {self.box.classes} and "
                f"{self.mask.classes}: say --model.head.mask.classes {self.box.classes}"
            )
        if self.pool not in ("max", "align") or not self.strides or not 0 < self.share <= 1:
            raise InputError(
                'RCNN wants pool "max" or "align", strides, and a share above 0 and up to 1; got '
                f"{self.pool!r}, {self.strides} and {self.share}"
            )
        if min(self.number, self.detections, *self.candidates, *self.proposals, self.pairs) < 1:
            raise InputError(
                "RCNN wants 1 or more regions, candidates, proposals, pairs and detections; got "
                f"{self.number}, {self.candidates}, {self.proposals}, {self.pairs} and "
                f"{self.detections}"
            )
        super().__post_init__()

    @property
    def classes(self) -> int:
        """Logits of a region: of the objects' classes and the background, 0."""
        return self.box.classes

    @nn.compact
    def __call__(
        self,
        maps: Maps,
        *,
        size: tuple[int, int],
        train: bool,
        targets: Batch | None = None,
        proposed: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What the RPN gives; with the truth what is to be learned of regions, else detections.

        Args:
          targets: "size" (b, 2), rows and columns of each image before it was padded, where its
            boxes are cut; in training the truth, too, around which regions are drawn.
          proposed: outputs of another model's RPN, where the head has none.

        Returns:
          With the truth, of n regions: "region_class" (b, n, k) and "region_box" (b, n, k, 4);
          "region_label" (b, n), the class, 0 background, -1 not drawn; "region_delta" (b, n, 4),
          deltas to the truth. With `mask`, of the first m, which hold all objects: "region_mask"
          (b, m, 28, 28, k), "region" (b, m, 4) and "region_id" (b, m).
          Without it the detections of all proposals (`encdec.boxes.detections`); with `mask` also
          "masks" (b, n, 28, 28), probabilities inside the box.
        """
        outputs = {} if self.rpn is None else self.rpn(maps, size=size, train=train)
        if (self.rpn is None) == (proposed is None):
            raise InputError(
                "regions want one that proposes, an rpn in the head or a proposer in the model; "
                f"got {'neither' if proposed is None else 'both'}"
            )
        if missing := set(self.strides) - set(maps):
            raise InputError(
                f"regions are pooled from strides {self.strides}; the decoder gives no {missing}: "
                "say --model.head.strides"
            )
        limit = jnp.asarray(size)[None] if targets is None else targets["size"]
        limit = jnp.broadcast_to(limit, (maps[min(maps)].shape[0], 2))
        found = self.propose(outputs if proposed is None else proposed, limit, train)
        maps = {stride: maps[stride] for stride in self.strides}
        if targets is not None and "boxes" in targets:
            drawn = self.drawn(found, targets)
            outputs |= self.box(self.pooled(maps, drawn["region"], self.size), train=train)
            if self.mask is not None:
                most = int(self.number * self.share)
                drawn |= {part: drawn[part][:, :most] for part in ("region", "region_id")}
                outputs |= self.masks(maps, drawn["region"])
            else:
                del drawn["region"], drawn["region_id"]
            return outputs | drawn
        parts = self.box(self.pooled(maps, found["boxes"], self.size), train=train)
        best = self.detected(parts, found, limit)
        if self.mask is not None:
            masks = self.masks(maps, best["boxes"])["region_mask"]
            chosen = (best["classes"] + 1)[:, :, None, None, None]
            masks = jnp.take_along_axis(masks, chosen, -1)[..., 0]
            best["masks"] = jax.nn.sigmoid(masks.astype(jnp.float32))
        return outputs | best

    def reach(self, strides: tuple[int, ...]) -> dict[int, int]:
        """Adjacent cells behind one row of the RPN, by stride of the maps; a region has its own."""
        return dict.fromkeys(strides, 1) if self.rpn is None else self.rpn.reach(strides)

    @nn.nowrap
    def propose(self, outputs: dict[str, Any], size: Int32[Array, "b 2"], train: bool) -> Found:
        """Proposals, cut to the image; they get no gradient."""
        outputs = jax.lax.stop_gradient(outputs)
        found, scores = [], []
        for stride in sorted(outputs["anchors"]):
            anchors, deltas = outputs["anchors"][stride], outputs["box"][stride]
            box = boxes.decode(deltas.astype(jnp.float32), anchors[None])
            found.append(boxes.clip(box, size))
            scores.append(outputs["class"][stride][..., 0].astype(jnp.float32))
        first, then = (pair[not train] for pair in (self.candidates, self.proposals))
        return boxes.proposals(
            found,
            scores,
            overlap=self.suppress,
            candidates=first,
            number=then,
            smallest=1e-3,
        )

    @nn.nowrap
    def drawn(self, found: Found, targets: Batch) -> Found:
        """Regions to train on, from the proposals and the truth boxes, and what each is to be."""
        key = self.make_rng("sample")
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(targets["index"])

        def one(key: Array, found: Found, truth: Batch) -> Found:
            real = truth["box_mask"] & ~truth["crowd"]
            region = jnp.concatenate([found["boxes"], truth["boxes"]])
            valid = jnp.concatenate([found["valid"], real])
            index, label = match(
                boxes.iou(region, truth["boxes"]),
                real,
                high=self.positive,
                low=self.positive,
                best=False,
            )
            crowd = truth["box_mask"] & truth["crowd"]
            label = spare_crowds(label, boxes.overlap(region, truth["boxes"]), crowd)
            label = jnp.where(valid, label, -1)
            place, there = draw(key, label, self.number, self.share)
            region, index, label = region[place], index[place], label[place]
            return {
                "region": region,
                "region_label": jnp.where(there, (truth["classes"][index] + 1) * label, -1),
                "region_delta": boxes.encode(truth["boxes"][index], region, self.weights),
                "region_id": jnp.where(there & (label == 1), truth["ids"][index], 0),
            }

        names = ("boxes", "classes", "box_mask", "crowd", "ids")
        truth = {name: targets[name] for name in names if name in targets}
        truth.setdefault("ids", jnp.zeros_like(truth["classes"]))
        return jax.lax.stop_gradient(jax.vmap(one)(keys, found, truth))

    @nn.nowrap
    def pooled(self, maps: Maps, regions: Regions, size: int) -> Float[Array, "b n s s c"]:
        if self.pool == "max":
            return roi_max_pool(maps, regions, size, canonical=self.canonical)
        return roi_align(maps, regions, size, canonical=self.canonical)

    @nn.nowrap
    def masks(self, maps: Maps, regions: Regions) -> Found:
        """Of these regions "region_mask"; always by RoIAlign, as its authors have it."""
        pooled = roi_align(maps, regions, self.mask_size, canonical=self.canonical)
        return self.mask(pooled, train=False)

    @nn.nowrap
    def detected(self, parts: Found, found: Found, size: Int32[Array, "b 2"]) -> Found:
        """Detections from the classes and boxes of the proposals."""
        deltas = parts["region_box"][:, :, 1:].astype(jnp.float32)
        around = jnp.broadcast_to(found["boxes"][:, :, None], deltas.shape)
        box = boxes.decode(deltas, around, self.weights)
        flat = boxes.clip(box.reshape(box.shape[0], -1, 4), size)
        return boxes.detections(
            flat.reshape(box.shape),
            jax.nn.softmax(parts["region_class"].astype(jnp.float32))[..., 1:],
            found["valid"],
            threshold=self.threshold,
            overlap=self.overlap,
            candidates=self.pairs,
            number=self.detections,
            smallest=1e-2,
        )
