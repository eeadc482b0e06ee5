"""A model with what stands before and after it, as one function of uint8 images: what is exported.

It gives the numbers of `encdec.predict` and `encdec.find`, but the sizes of its images may be
symbolic (`jax.export`): nothing here asks how many pixels there are.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.core import max_dim
from jaxtyping import Array, Float, Float32, Int32, Shaped, UInt8

from encdec.data.fit import BUCKET, bucket
from encdec.find import detections
from encdec.geometry import next_good_size
from encdec.layers import bilinear
from encdec.model import EncoderDecoder
from encdec.predict import walk
from encdec.tasks.segment import Segment
from encdec.tasks.task import Task
from encdec.tiles import Sight, bell_of, extended, sight, window_of

Images = UInt8[Array, "b h w c"]
Outputs = dict[str, Shaped[Array, "b ..."]]

Length = Any
"""An int, or a symbol for one."""

Size = tuple[Length, Length]


@dataclass(frozen=True)
class Program:
    """(variables, images) -> what the task finds in each image.

    "labels", (b, h, w) int32, and with `probabilities` these, (b, h, w, k) float32 in [0, 1]; of a
    detector "boxes", "scores", "classes" and "valid", see `encdec.boxes.Detections`, in pixels of
    the image; with masks "masks" too, (b, n, s, s) in [0, 1], that fill the boxes or, where there
    are these, the "windows".

    Images are shrunk, then extended at the bottom and right to a multiple of `block`; `predict`
    extends to one of a few of these multiples. An unpadded net's are mirrored, as there.

    Attributes:
      shrink: the factor by which the net was trained on smaller images.
      channels: of the images.
      limit: rows and columns of the largest image; all images are extended to what `predict`
        extends that one to. None: any size.
      tile: as in `predict`, but that an image smaller than a tile is extended to one.
    """

    model: EncoderDecoder
    task: Task
    shrink: int = 1
    channels: int = 3
    limit: tuple[int, int] | None = None
    tile: int = 0
    probabilities: bool = False

    @property
    def block(self) -> int:
        """Pixels of the shrunk image to whose multiples it is extended."""
        return max(BUCKET, max(self.model.encoder.receptive_fields()))

    def __call__(self, variables: Any, images: Images) -> Outputs:
        small = shrunk(images, self.shrink)
        if isinstance(self.task, Segment):
            return self.segmented(variables, images.shape[1:3], small)
        return self.detected(variables, images.shape[1:3], small)

    def filled(self, axis: int, length: Length) -> Length:
        """Rows or columns to which those of the shrunk image are extended."""
        if self.limit is None:
            return -(-length // (self.shrink * self.block)) * self.block
        most = bucket(-(-self.limit[axis] // self.shrink))
        return -(-most // self.block) * self.block if isinstance(self.task, Segment) else most

    def segmented(self, variables: Any, size: Size, small: Images) -> Outputs:
        """Labels, and probabilities, at that size."""
        own = sight(self.model, self.channels, self.shrink)
        whole = [
            self.filled(i, n) + 2 * m for i, (n, m) in enumerate(zip(size, own.margin, strict=True))
        ]
        whole = next_good_size(self.model, tuple(whole))
        window = window_of(self.model, own, self.tile) if self.tile else whole
        if self.tile:
            whole = tuple(max_dim(n, least) for n, least in zip(whole, window, strict=True))
        mode = "edge" if own.padded else "reflect"
        for axis, (n, m) in enumerate(zip(whole, own.margin, strict=True), 1):
            place = extended(jnp.arange(n) - m, small.shape[axis], mode)
            small = jnp.take(small, place, axis, mode="clip")
        if self.tile:
            rows, columns = (
                tiles(n, w, m, own, self.shrink)
                for n, w, m in zip(whole, window, own.margin, strict=True)
            )
            how = {"window": window, "shrink": self.shrink, "turned": ((0, 0, 0),), "ids": None}

            def one(image: UInt8[Array, "y x c"]) -> Float32[Array, "_ _ k"]:
                return walk(variables, image, rows, columns, model=self.model, **how)["logits"]

            logits = lax.map(one, small)
        else:
            logits = self.model.apply(variables, small.astype(jnp.float32) / 255)["logits"]
            logits = logits.astype(jnp.float32)
            logits = bilinear(logits, self.shrink) if self.shrink > 1 else logits
        logits = logits[:, : size[0], : size[1]]
        found = {"labels": self.task.decode({"logits": logits})}
        if self.probabilities:
            found["probabilities"] = self.task.probabilities(logits)
        return found

    def detected(self, variables: Any, size: Size, small: Images) -> Outputs:
        """Objects in images of that size."""
        inner = jnp.array([small.shape[1:3]], jnp.int32)
        for axis, n in enumerate(size):
            place = extended(jnp.arange(self.filled(axis, n)), small.shape[axis + 1], "edge")
            small = jnp.take(small, place, axis + 1, mode="clip")
        inner = jnp.broadcast_to(inner, (small.shape[0], 2))
        pixels = small.astype(jnp.float32) / 255
        found = detections(self.model, self.task, variables, pixels, inner)
        limit = jnp.array([[[*size, *size]]], jnp.float32)
        whole = {name: found[name] * self.shrink for name in ("boxes", "windows") if name in found}
        return found | whole | {"boxes": jnp.minimum(whole["boxes"], limit)}


def shrunk(images: Images, factor: int) -> UInt8[Array, "b y x c"]:
    """(b, ceil(h / factor), ceil(w / factor), c): means of squares, of what there is of them at the
    ends, rounded as Pillow's `reduce` does."""
    if factor == 1:
        return images
    b, *size, c = images.shape
    cells = [-(-n // factor) for n in size]
    border = [(0, cell * factor - n) for cell, n in zip(cells, size, strict=True)]
    wide = jnp.pad(images, [(0, 0), *border, (0, 0)]).astype(jnp.uint32)
    total = wide.reshape(b, cells[0], factor, cells[1], factor, c).sum((2, 4), dtype=jnp.uint32)
    rows, columns = (
        jnp.minimum(n - jnp.arange(cell) * factor, factor)
        for cell, n in zip(cells, size, strict=True)
    )
    count = (rows[:, None] * columns[None])[None, :, :, None].astype(jnp.uint32)
    return ((total + count // 2) * (2**24 // count) >> 24).astype(jnp.uint8)


def tiles(
    length: Length, window: int, margin: int, own: Sight, factor: int
) -> tuple[Int32[Array, ""], Int32[Array, "tiles"], Float32[Array, "tiles result"]]:
    """Number, first pixels and shares of the tiles of an axis: `encdec.tiles.blended`, or `exact`,
    and `shares`, where the length is known at run time alone.

    Args:
      length: of the canvas, at least the window.
      factor: pixels of the result for one of the canvas.
    """
    last, result = length - window, window - 2 * margin
    step = max(window // 2, 1) if own.padded else (result - 2 * own.halo) // own.cell * own.cell
    number = -(-last // step) + 1
    i, place = jnp.arange(number), jnp.arange(result)
    if own.padded:
        starts = i * last // jnp.maximum(number - 1, 1) // own.cell * own.cell
        bell = jnp.asarray(bell_of(result))

        def add(k: Int32[Array, ""], total: Float[Array, "n"]) -> Float[Array, "n"]:
            before = lax.dynamic_slice(total, (starts[k],), (result,))
            return lax.dynamic_update_slice(total, before + bell, (starts[k],))

        total = lax.fori_loop(0, number, add, jnp.zeros(length, jnp.float32))
        weights = bell[None] / total[starts[:, None] + place[None]]
    else:
        starts = jnp.minimum(i * step, last)
        firsts = starts + own.halo * (starts > 0)
        ends = jnp.append(firsts[1:], last + result)
        place = starts[:, None] + place[None]
        weights = (firsts[:, None] <= place) & (place < ends[:, None])
    return jnp.int32(number), starts, jnp.repeat(weights.astype(jnp.float32), factor, 1)
