"""What training sees of an image: a random crop, flipped, scaled, rotated, deformed, recoloured.

One sampling field per example moves the image, its labels, instance ids, pixel weights and boxes,
so they stay together. An example's draw follows from the key and its position in the global batch
alone: any number of devices sees the same.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, Shaped

from encdec.arrays import IGNORE, Batch
from encdec.data.fit import VISIBLE
from encdec.errors import InputError

FILL = {"label": IGNORE, "instances": 0, "weight": 0}
"""What lies outside the image, in the maps that are read by nearest neighbour."""

CELL = 32
"""Rows and columns of a patch that is kept or dropped: the stride of FCN's last layer."""

Example = dict[str, Shaped[Array, "..."]]
Point = Float[Array, "2"]


@dataclass(frozen=True)
class Augment:
    """Random (key, batch) -> batch; the defaults crop and flip, exact to the pixel.

    Attributes:
      size: rows and columns of the result. The crop lies inside the image's valid part where it
        fits, and around it where it does not; what is then outside the image is `border`'s.
      flip: probability of a mirror image, left to right.
      scale: range of magnification, log-uniform; above 1 things grow.
      rotate: largest angle in degrees, either way.
      colour: strength c in [0, 1]: brightness, contrast and saturation times 1 - c to 1 + c,
        hue turned by up to 90 c degrees. A grey image stays grey: of the four only brightness and
        contrast change it, the grey-value variation of U-Net §3.1.
      elastic: standard deviation in pixels of the result, along each axis, of random displacements
        at 3x3 points that span it, corners included; between them a natural cubic spline. 10 in
        U-Net §3.1. Not for boxes.
      border: what lies outside the image. "edge": its edge pixels, label 255, weight 0. "mirror":
        image, label, instances and weights mirrored, the edge pixel not repeated (U-Net Fig. 2;
        `numpy.pad` calls it "reflect"). Not for boxes.
      keep: share of the pixels whose loss counts, drawn in squares of 32 (FCN §4.3, patch sampling:
        no faster than whole images).
      visible: a box of which a smaller part of the area is left, or whose centre is outside,
        becomes one of the "crowd": neither object nor background. SSD §2.2 keeps a box by its
        centre, which leaves half of it, or a quarter at a corner of the crop; 1 keeps whole ones.
    """

    size: tuple[int, int]
    flip: float = 0.5
    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    colour: float = 0.0
    elastic: float = 0.0
    border: Literal["edge", "mirror"] = "edge"
    keep: float = 1.0
    visible: float = VISIBLE

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InputError(f"augment size wants rows and columns of 1 or more, got {self.size}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"augment scale wants 0 < low <= high, got {self.scale}")
        if self.border not in ("edge", "mirror"):
            raise InputError(f"augment border wants 'edge' or 'mirror', got {self.border!r}")
        limits = {"flip": 1, "colour": 1, "rotate": 180, "elastic": inf, "keep": 1, "visible": 1}
        for name, highest in limits.items():
            if not 0 <= getattr(self, name) <= highest:
                raise InputError(f"augment {name} wants 0 to {highest}, got {getattr(self, name)}")

    def __call__(self, key: PRNGKeyArray, batch: Batch) -> Batch:
        """Float images in [0, 1], int32 labels, all of size `size`; boxes that left are masked.

        Of label, instances, weight and boxes the batch has those that it needs. Boxes are cut at
        the border (`visible`); "crowd" is there with them, "ids" follow where they were.

        Raises:
          InputError: image and maps differ in size; or boxes with `elastic` or a mirrored border.
        """
        for name in set(FILL) & set(batch):
            if batch[name].shape[1:3] != batch["image"].shape[1:3]:
                raise InputError(
                    f"augment wants image and {name} of one size, got {batch['image'].shape[1:3]} "
                    f"and {batch[name].shape[1:3]}: shrink the image after it"
                )
        if "boxes" in batch and (self.elastic or self.border == "mirror"):
            raise InputError(
                f"augment with boxes wants elastic 0 and border 'edge', got {self.elastic} and "
                f"{self.border!r}: a box can be neither bent nor mirrored; leave the boxes out"
            )
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        return jax.vmap(self._one)(keys, batch)

    def _one(self, key: PRNGKeyArray, example: Example) -> Example:
        keys = jax.random.split(key, 7)
        place_key, flip_key, scale_key, angle_key, colour_key, bend_key, keep_key = keys
        mirror = jnp.where(jax.random.bernoulli(flip_key, self.flip), -1.0, 1.0)
        place = jax.random.uniform(place_key, (2,))
        valid = example["size"]
        if self.scale == (1.0, 1.0) and self.rotate == self.elastic == 0:
            matrix = jnp.diag(jnp.stack([jnp.ones(()), mirror]))
            room = valid - jnp.asarray(self.size)
            # Room below 0: the crop is the larger one and the image moves within it.
            start = jnp.floor(place * (jnp.abs(room) + 1)).astype(jnp.int32)
            start = jnp.minimum(start, jnp.abs(room)) * jnp.sign(room)
            centre = start + jnp.asarray(self.size) / 2
            moved = self._crop(example, start, mirror)
        else:
            low, high = jnp.log(self.scale[0]), jnp.log(self.scale[1])
            scale = jnp.exp(jax.random.uniform(scale_key, minval=low, maxval=high))
            angle = jnp.deg2rad(
                jax.random.uniform(angle_key, (), minval=-1, maxval=1) * self.rotate
            )
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
            matrix = turn * jnp.stack([jnp.ones(()), mirror])[None] / scale
            half = jnp.asarray(self.size) / 2
            reach = (jnp.abs(matrix) * half[None]).sum(1)  # half the crop's bounding box
            centre = reach + place * (valid - 2 * reach)
            moved = self._warp(example, centre, matrix, bend_key)
        if self.colour:
            moved["image"] = recolour(colour_key, moved["image"], self.colour)
        if self.keep < 1:
            cells = jax.random.bernoulli(keep_key, self.keep, [-(-n // CELL) for n in self.size])
            kept = jnp.repeat(jnp.repeat(cells, CELL, 0), CELL, 1)[: self.size[0], : self.size[1]]
            moved["weight"] = moved.get("weight", 1.0) * kept
        if "boxes" in example:
            moved |= self._boxes(example, centre, matrix)
        rest = {name: value for name, value in example.items() if name not in moved}
        return rest | moved | {"size": jnp.asarray(self.size, jnp.int32)}

    def _crop(
        self, example: Example, start: Integer[Array, "2"], mirror: Float[Array, ""]
    ) -> Example:
        """Whole-pixel crop from `start` on: no arithmetic on any value."""
        rows, columns = (start[i] + jnp.arange(self.size[i]) for i in (0, 1))
        columns = jnp.where(mirror < 0, columns[::-1], columns)
        height, width = example["size"]
        within = [(place >= 0) & (place < n) for place, n in ((rows, height), (columns, width))]
        inside = within[0][:, None] & within[1][None]
        rows, columns = self._brought_in(rows, height), self._brought_in(columns, width)
        at = rows[:, None] * example["image"].shape[1] + columns[None]
        moved = {"image": _take(example["image"], at).astype(jnp.float32) / 255}
        return moved | self._nearest(example, at, inside)

    def _warp(
        self, example: Example, centre: Point, matrix: Float[Array, "2 2"], key: PRNGKeyArray
    ) -> Example:
        """The image bilinearly, the maps of ids by nearest neighbour, from one field."""
        height, width = example["size"]
        y, x = self._places(centre, matrix, key)
        inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
        y, x = self._brought_in(y, height), self._brought_in(x, width)
        stride = example["image"].shape[1]
        top, left = y.astype(jnp.int32), x.astype(jnp.int32)
        down, right = (y - top)[..., None], (x - left)[..., None]
        at = top * stride + left
        # Past the last row or column the weight is 0: any pixel will do.
        corner = [
            _take(example["image"], at + step).astype(jnp.float32)
            for step in (0, 1, stride, stride + 1)
        ]
        upper = corner[0] + right * (corner[1] - corner[0])
        lower = corner[2] + right * (corner[3] - corner[2])
        at = jnp.round(y).astype(jnp.int32) * stride + jnp.round(x).astype(jnp.int32)
        moved = {"image": (upper + down * (lower - upper)) / 255}
        return moved | self._nearest(example, at, inside)

    def _places(
        self, centre: Point, matrix: Float[Array, "2 2"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "y x"], Float[Array, "y x"]]:
        """Row and column in the image of every pixel of the result; whole numbers are centres."""

        def affine(rows: Array, columns: Array) -> tuple[Array, Array]:
            y, x = (centre[i] - 0.5 + matrix[i, 0] * rows + matrix[i, 1] * columns for i in (0, 1))
            return y, x

        if not self.elastic:
            rows, columns = (jnp.arange(n) + 0.5 - n / 2 for n in self.size)
            return affine(rows[:, None], columns[None])
        rows, columns = (jnp.linspace(-0.5, 0.5, 3) * (n - 1) for n in self.size)
        down, right = self.elastic * jax.random.normal(key, (2, 3, 3))
        nodes = jnp.stack(affine(rows[:, None] + down, columns[None] + right))
        # The spline of a straight line is straight: it carries the affine map too.
        along, across = (jnp.asarray(spline(n), jnp.float32) for n in self.size)
        y, x = jnp.einsum("yi,aij,xj->ayx", along, nodes, across, precision="highest")
        return y, x

    def _brought_in(
        self, place: Shaped[Array, "*n"], length: Integer[Array, ""]
    ) -> Shaped[Array, "*n"]:
        """Rows or columns, brought to 0 … length - 1 as `border` says."""
        if self.border == "mirror":
            period = jnp.maximum(2 * (length - 1), 1)
            turns = jnp.round(place / period).astype(place.dtype)
            place = jnp.abs(place - period * turns)  # a triangle wave
        return jnp.clip(place, 0, length - 1)

    def _nearest(
        self, example: Example, at: Integer[Array, "y x"], inside: Bool[Array, "y x"]
    ) -> Example:
        """The maps of ids and weights at flat places, filled outside; labels as int32."""
        moved = {}
        for name, fill in FILL.items():
            if name in example:
                moved[name] = values = _take(example[name], at)
                if self.border == "edge":
                    mask = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
                    moved[name] = jnp.where(mask, values, jnp.asarray(fill, values.dtype))
        if "label" in moved:
            moved["label"] = moved["label"].astype(jnp.int32)
        return moved

    def _boxes(self, example: Example, centre: Point, matrix: Float[Array, "2 2"]) -> Example:
        """Boxes around their moved corners, clipped; those with under a pixel left are masked.

        Of one whose centre left, or that has less than `visible` of its area left, says "crowd".
        """
        boxes = example["boxes"]
        corners = jnp.stack([boxes[:, [i, j]] for i in (0, 2) for j in (1, 3)])  # (4, n, 2)
        half = jnp.asarray(self.size) / 2
        away = (corners - centre[None, None])[..., None]
        # Rows of the matrix are orthogonal, of length 1 / scale; no dot: on a TPU it is bfloat16.
        corners = (away * matrix[None, None]).sum(-2) / (matrix[0] ** 2).sum() + half[None, None]
        limit = 2 * half[None]
        whole = corners.min(0), corners.max(0)
        low, high = (jnp.clip(edge, 0, limit) for edge in whole)
        kept = example["box_mask"] & (high - low >= 1).all(-1)
        middle = sum(whole) / 2
        cut = ((middle < 0) | (middle > limit)).any(-1)
        # A box that is whole stays so, however its area is rounded.
        share = (high - low).prod(-1) / jnp.maximum((whole[1] - whole[0]).prod(-1), 1e-9)
        cut |= share < self.visible - 1e-4
        crowd = kept & (example.get("crowd", jnp.zeros_like(kept)) | cut)
        boxes = jnp.where(kept[:, None], jnp.concatenate([low, high], -1), 0)
        moved = {"boxes": boxes, "box_mask": kept, "crowd": crowd}
        return moved | ({"ids": jnp.where(kept, example["ids"], 0)} if "ids" in example else {})


def _take(values: Shaped[Array, "h w *c"], at: Integer[Array, "y x"]) -> Shaped[Array, "y x *c"]:
    """The pixels at flat places, 0 or above, all channels at once; past the end the last one."""
    flat = values.reshape(-1, *values.shape[2:])
    return flat.at[at.astype(jnp.uint32)].get(mode="clip")  # unsigned: none counts from the end


def spline(n: int) -> Float[np.ndarray, "n 3"]:
    """Weights of 3 nodes, at the first, middle and last of n pixels: the natural cubic spline."""
    v = np.linspace(-1, 1, n)
    middle = 1 - 1.5 * v**2 + 0.5 * abs(v) ** 3
    return np.stack([(1 - middle - v) / 2, middle, (1 - middle + v) / 2], -1)


def recolour(
    key: PRNGKeyArray, image: Float[Array, "h w 3"], strength: float
) -> Float[Array, "h w 3"]:
    """Random brightness, contrast, saturation and hue as one affine map of RGB, cut to [0, 1].

    The grey axis stays grey: saturation stretches, and hue turns, what is at right angles to it.
    """
    image = jax.lax.optimization_barrier(image)  # or XLA samples it again for every use: 20 times
    draws = jax.random.uniform(key, (4,), minval=-strength, maxval=strength)
    brightness, contrast, saturation = 1 + draws[:3]
    angle = draws[3] * jnp.pi / 2
    grey, cross = jnp.full((3, 3), 1 / 3), jnp.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = jnp.cos(angle) * (jnp.eye(3) - grey) + jnp.sin(angle) / jnp.sqrt(3) * cross
    matrix = contrast * brightness * (grey + saturation * turn)
    offset = brightness * (1 - contrast) * image.mean()  # contrast turns about the mean grey
    channels = [sum(matrix[i, j] * image[..., j] for j in range(3)) + offset for i in range(3)]
    return jnp.clip(jnp.stack(channels, -1), 0, 1)


def prepare(batch: Batch) -> Batch:
    """The batch for evaluation: images float32 in [0, 1], labels int32, nothing moved."""
    batch = batch | {"image": batch["image"].astype(jnp.float32) / 255}
    return batch | {name: batch[name].astype(jnp.int32) for name in ("label",) if name in batch}
