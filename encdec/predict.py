"""One image of any size -> label map."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

from encdec.data.fit import BUCKET, shrunk
from encdec.errors import InputError
from encdec.geometry import geometry, next_good_size
from encdec.memory import forward_memory
from encdec.model import EncoderDecoder


def predict(
    model: EncoderDecoder,
    variables: Any,
    image: UInt8[np.ndarray, "h w c"],
    *,
    shrink: int = 1,
    memory: float = 2.0,
) -> Int32[np.ndarray, "h w"]:
    """Class ids of every pixel: the greatest logit's.

    The image is padded, by its edge, to a multiple of 32 pixels, so that images of many sizes
    share few compiled programs; for an unpadded net it is mirrored, without repeating the edge
    (U-Net §2), by the net's margin and up to the next good size.

    Args:
      shrink: the factor by which the net was trained on smaller images; ids are at full size.
      memory: GiB that the maps may take, by the estimate of `forward_memory`. An image that needs
        more is read in bands of rows, as few as fit, each with what its pixels see above and below:
        the ids are those of the whole image, but for GroupNorm, whose statistics are then the
        band's.

    Raises:
      InputError: not even the lowest band fits.
    """
    height, width = image.shape[:2]
    small = shrunk({"image": image}, shrink)["image"]
    bands = fit_bands(model, small.shape, memory, extra=shrink > 1)
    run, canvas = _compiled(model, shrink), np.pad(small, bands.border, mode=bands.mode)
    labels = []
    for start, top, stop in bands.parts:
        found = run(variables, canvas[None, start : start + bands.window])[0]
        labels.append(np.asarray(found)[(top - start) * shrink : (stop - start) * shrink])
    return np.concatenate(labels)[:height, :width]


@dataclass(frozen=True)
class Bands:
    """How an image is read: in bands of rows of a canvas, all of one size.

    Attributes:
      border: rows and columns to pad the image with, to make the canvas.
      mode: of the padding, `numpy.pad`'s.
      window: rows of a band.
      parts: (start, top, stop) of each: the band's first row in the canvas, and which rows of the
        image it gives.
    """

    border: tuple[tuple[int, int], ...]
    mode: Literal["edge", "reflect"]
    window: int
    parts: tuple[tuple[int, int, int], ...]


def fit_bands(
    model: EncoderDecoder, shape: tuple[int, ...], memory: float, *, extra: int = 0
) -> Bands:
    """The fewest bands of an image (h, w, c) whose maps take at most `memory` GiB.

    Bands start on cells of the coarsest map, so that every pooling is in the whole image's phase,
    and overlap by a halo either way: half the receptive field, rounded up to whole cells; of an
    unpadded net, whose results lack the margin, nothing.

    Args:
      extra: further pixels of the net's output that a result needs on either side.

    Raises:
      InputError: not even the lowest band fits.
    """
    height, width, channels = shape
    cell = max(model.encoder.receptive_fields())
    block = max(BUCKET, cell)
    size = (-(-height // block) * block, -(-width // block) * block)
    geo = geometry(model, size, channels)
    (above, left), padded = geo.margin, geo.margin == (0, 0)
    if not padded:
        size = next_good_size(model, (height + 2 * above, width + 2 * left))
    reach = geo.receptive_field + cell if padded else 0  # a cell is not centred on its pixels
    halo = -(-(reach + 2 * extra) // (2 * cell)) * cell
    bands, window, lowest = 1, size[0], 2 * halo + cell
    while (held := forward_memory(model, (window, size[1], channels))) > memory * 2**30:
        if window <= next_good_size(model, (lowest + 2 * above, size[1]))[0]:
            raise InputError(
                f"an image {width} pixels wide wants {held / 2**30:.2g} GiB for the {window} rows "
                f"of its lowest band; got {memory}: allow more --memory"
            )
        fit = int(window * memory * 2**30 / held) - 2 * above
        bands = max(bands + 1, -(-(height - 2 * halo) // max(fit - 2 * halo, cell)))
        rows = max(-(-(height + 2 * halo * (bands - 1)) // (bands * cell)) * cell, lowest)
        window = next_good_size(model, (rows + 2 * above, size[1]))[0]
    rows = (window - 2 * above) // cell * cell
    step, last = max(rows - 2 * halo, cell), size[0] - window if padded else height - rows
    starts = [i * step for i in range(-(-last // step) + 1 if bands > 1 else 1)]
    canvas = size[0] if padded else starts[-1] + window
    starts = [min(start, canvas - window) for start in starts]
    tops = [start + halo * (start > 0) for start in starts] + [height]
    parts = tuple(zip(starts, tops, tops[1:], strict=False))
    after = (canvas - height - above, size[1] - width - left)
    border = ((above, after[0]), (left, after[1]), (0, 0))
    return Bands(border, "edge" if padded else "reflect", window, parts)


@functools.lru_cache(maxsize=8)
def _compiled(model: EncoderDecoder, shrink: int) -> Any:
    @jax.jit
    def labels(variables: Any, images: UInt8[Array, "b h w c"]) -> Int32[Array, "b y x"]:
        logits = model.apply(variables, images.astype(jnp.float32) / 255)["logits"]
        b, h, w, k = logits.shape
        if shrink > 1:
            logits = jax.image.resize(logits, (b, h * shrink, w * shrink, k), "bilinear")
        return jnp.argmax(logits, -1).astype(jnp.int32)

    return labels
