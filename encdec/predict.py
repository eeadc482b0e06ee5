"""One image of any size -> label map, or outputs: tiles walked by one compiled function."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, Num, UInt8
from PIL import Image

from encdec.data.fit import shrunk
from encdec.errors import InputError
from encdec.layers import bilinear
from encdec.model import EncoderDecoder
from encdec.tiles import Axis, plan, shares
from encdec.turns import Turn, Version, averaged, versions

Results = dict[str, Num[np.ndarray, "h w k"]]


def predict(
    model: EncoderDecoder,
    variables: Any,
    image: np.ndarray,
    *,
    shrink: int = 1,
    memory: float = 2.0,
    tile: int = 0,
    tta: tuple[Turn, ...] = (),
    scales: tuple[float, ...] = (1.0,),
) -> Int32[np.ndarray, "h w"]:
    """Class ids of every pixel: the greatest logit's; of a net with one logit, 1 above 0.

    The image is uint8, (h, w, c), of 0 to 255; the net sees it in [0, 1].
    The image is padded, by its edge, to one of a few sizes (`encdec.data.fit.bucket`), so that
    images of many sizes share few compiled programs; for an unpadded net it is mirrored, without
    repeating the edge (U-Net §2), by the net's margin and up to the next good size.

    Args:
      shrink: the factor by which the net was trained on smaller images; ids are at full size.
      memory: GiB that the maps may take, by the estimate of `forward_memory`. An image that needs
        more is read in parts, as few as fit: bands of rows for a padded net, each with what its
        pixels see above and below; tiles for an unpadded one. The ids are those of the whole image,
        but for GroupNorm, whose statistics are then the part's.
      tile: rows and columns to read at a time, rounded up to a size that the net takes and gives a
        cell of, whatever the memory; 0: as `memory` has it. An unpadded net's ids are the whole
        image's again. A padded net's tiles overlap by half and their scores are blended, which is
        approximate: the inner borders see zeros.
      tta: turns at test time, all that these generate: both flips are the four versions of
        U-Net's release, "rotate90" is four, with a flip eight. Their scores are averaged.
      scales: of the image, resized bilinearly and its scores back; averaged too.

    Raises:
      InputError: not even the smallest part fits, or an option cannot be.
    """
    check_options(shrink, memory, scales)
    check_image(image)
    options = {"shrink": shrink, "memory": memory, "tile": tile, "tta": tta}
    if scales == (1.0,):  # tiles become ids before they are put together: no map of scores
        return _at_one_scale(model, variables, image, labels=True, **options)["logits"][..., 0]
    scores = predict_outputs(model, variables, image, scales=scales, **options)
    return class_ids(scores["logits"])[..., 0]


def predict_outputs(
    model: EncoderDecoder,
    variables: Any,
    image: np.ndarray,
    *,
    shrink: int = 1,
    memory: float = 2.0,
    tile: int = 0,
    tta: tuple[Turn, ...] = (),
    scales: tuple[float, ...] = (1.0,),
) -> dict[str, Float32[np.ndarray, "h w _"]]:
    """Every output of the model that is as large as its "logits", at image size; see `predict`."""
    check_options(shrink, memory, scales)
    check_image(image)
    options = {"memory": memory, "tile": tile, "tta": tta, "labels": False}
    if scales == (1.0,):
        return _at_one_scale(model, variables, image, shrink=shrink, **options)
    small, totals = shrunk({"image": image}, shrink)["image"], {}
    full = tuple(n * shrink for n in small.shape[:2])
    for scale in scales:
        size = tuple(max(1, round(n * scale)) for n in small.shape[:2])
        found = _at_one_scale(model, variables, _resized(small, size), shrink=1, **options)
        for name, scores in found.items():
            scores = _resized(scores, full)[: image.shape[0], : image.shape[1]] / len(scales)
            totals[name] = totals[name] + scores if name in totals else scores
    return totals


def check_image(image: np.ndarray) -> None:
    """Raises InputError where an image is not (h, w, c) of uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
        raise InputError(
            "predict wants an image (rows, columns, channels) of uint8, 0 to 255; got "
            f"{image.dtype} of shape {image.shape}: grey is image[..., None]"
        )


def check_options(shrink: int = 1, memory: float = 1.0, scales: tuple[float, ...] = (1.0,)) -> None:
    """Raises InputError where an option cannot be, whatever the image is."""
    if shrink < 1:
        raise InputError(f"shrink wants a factor of at least 1; got {shrink}")
    if not memory > 0:
        raise InputError(f"memory wants GiB above 0; got {memory}: say how much --memory may take")
    if not scales or not all(0 < scale < np.inf for scale in scales):
        raise InputError(f"scales wants one or more positive numbers; got {scales}")


def programs() -> int:
    """How many programs predictions have compiled in this process."""
    return walk._cache_size()


def _at_one_scale(
    model: EncoderDecoder,
    variables: Any,
    image: UInt8[np.ndarray, "h w c"],
    *,
    shrink: int,
    memory: float,
    tile: int,
    tta: tuple[Turn, ...],
    labels: bool,
) -> Results:
    """The outputs at image size, or {"logits": the ids, one channel}."""
    height, width = image.shape[:2]
    image = shrunk({"image": image}, shrink)["image"]
    grid = plan(model, image.shape, shrink=shrink, memory=memory, tile=tile)
    places = [
        (
            np.int32(len(axis.starts)),
            _filled(axis.starts, axis),
            _filled(shares(axis, shrink), axis),
        )
        for axis in (grid.rows, grid.columns)
    ]
    found = walk(
        variables,
        grid.canvas(image),
        *places,
        model=model,
        window=grid.window,
        shrink=shrink,
        turned=versions(tta),
        ids="of tiles" if labels and grid.exact else "of all" if labels else None,
    )
    return {name: np.asarray(x)[:height, :width].copy() for name, x in found.items()}


def _filled(given: Any, axis: Axis) -> Num[np.ndarray, "most *_"]:
    """A row for each tile that there is room for."""
    rows = np.asarray(given, np.float32 if np.ndim(given) > 1 else np.int32)
    return np.pad(rows, [(0, axis.most - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


@partial(jax.jit, static_argnames=("model", "window", "shrink", "turned", "ids"))
def walk(
    variables: Any,
    canvas: UInt8[Array, "y x c"],
    rows: tuple[Int32[Array, ""], Int32[Array, "i"], Float32[Array, "i _"]],
    columns: tuple[Int32[Array, ""], Int32[Array, "j"], Float32[Array, "j _"]],
    *,
    model: EncoderDecoder,
    window: tuple[int, int],
    shrink: int,
    turned: tuple[Version, ...],
    ids: Literal["of tiles", "of all"] | None,
) -> dict[str, Num[Array, "_ _ _"]]:
    """Weighted sums of all tiles' outputs on the whole canvas, less its margins.

    Only one tile's maps are there at a time; `ids` leaves the logits' alone, as ids with one
    channel, taken of every tile or of the sums.

    Args:
      rows, columns: number of tiles, their first pixels, and the weights of their results.
    """
    (down, tops, row_shares), (across, lefts, column_shares) = rows, columns

    def results(top: Int32[Array, ""], left: Int32[Array, ""]) -> dict[str, Num[Array, "_ _ _"]]:
        pixels = lax.dynamic_slice(canvas, (top, left, 0), (*window, canvas.shape[2]))
        found = averaged(partial(_outputs, model, variables), pixels, turned)
        if shrink > 1:
            found = {name: bilinear(x[None], shrink)[0] for name, x in found.items()}
        found = {"logits": found["logits"]} if ids else found
        return {"logits": class_ids(found["logits"])} if ids == "of tiles" else found

    def tile(i: Int32[Array, ""], totals: dict[str, Array]) -> dict[str, Array]:
        row, column = i // across, i % across
        top, left = tops[row], lefts[column]
        share = row_shares[row][:, None, None] * column_shares[column][None, :, None]

        def add(total: Array, part: Array) -> Array:
            place = (top * shrink, left * shrink, 0)
            before = lax.dynamic_slice(total, place, part.shape)
            return lax.dynamic_update_slice(total, before + share.astype(part.dtype) * part, place)

        return jax.tree.map(add, totals, results(top, left))

    def empty(part: jax.ShapeDtypeStruct) -> Array:
        size = [
            (n - w) * shrink + p
            for n, w, p in zip(canvas.shape[:2], window, part.shape[:2], strict=True)
        ]
        return jnp.zeros((*size, part.shape[2]), part.dtype)

    totals = jax.tree.map(empty, jax.eval_shape(results, tops[0], lefts[0]))
    totals = lax.fori_loop(0, down * across, tile, totals)
    return {"logits": class_ids(totals["logits"])} if ids == "of all" else totals


def _outputs(
    model: EncoderDecoder, variables: Any, pixels: UInt8[Array, "h w c"]
) -> dict[str, Float32[Array, "_ _ _"]]:
    """Of one application: those as large as the logits."""
    found = model.apply(variables, pixels[None].astype(jnp.float32) / 255)
    size = found["logits"].shape[1:3]
    large = {name: x for name, x in found.items() if getattr(x, "shape", ())[1:3] == size}
    return {name: x[0].astype(jnp.float32) for name, x in large.items()}


def class_ids(scores: Float32[Array | np.ndarray, "h w k"]) -> Int32[Array | np.ndarray, "h w 1"]:
    """The greatest score's number; of a single score, whether it is above 0."""
    if scores.shape[-1] == 1:
        return (scores > 0).astype(np.int32)
    return scores.argmax(-1)[..., None].astype(np.int32)


def _resized(image: Num[np.ndarray, "h w c"], size: tuple[int, ...]) -> Num[np.ndarray, "y x c"]:
    """Bilinear, channel by channel, averaging where it makes smaller."""
    layers = (Image.fromarray(np.ascontiguousarray(x)) for x in np.moveaxis(image, -1, 0))
    large = [np.array(x.resize(size[::-1], Image.Resampling.BILINEAR)) for x in layers]
    return np.stack(large, -1)
