"""Where tiles stand on an image, axis by axis: whole numbers and weights; no pixel is computed.

A net with poolings commutes only with shifts by whole cells of its coarsest map: 16 pixels in
U-Net's Figure 1. Tiles that start on multiples of it have every pooling in the phase that it has in
one pass over the whole image, and the same results. The classic step, a tile's whole result (388
pixels of an input of 572), is 24 cells and 4 pixels: from its second tile on every map is cut
otherwise, and the seams do not fit to rounding. Here such tiles step by 384 pixels, and the last
one ends where the whole image's canvas does, so that it meets the same border too.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float32, Int, UInt8

from encdec.data.fit import BUCKET, bucket
from encdec.errors import InputError
from encdec.geometry import geometry, next_good_size
from encdec.memory import forward_memory
from encdec.model import EncoderDecoder


@dataclass(frozen=True)
class Axis:
    """Tiles of one size along one axis of a canvas, on which the image starts at `margin`.

    Attributes:
      window: pixels that a tile reads.
      margin: pixels of a window that its result lacks at either end (U-Net §2: 92).
      starts: first pixel of each tile.
      canvas: pixels. Window and number of tiles decide it, so that images of many sizes share it;
        what lies after the last tile is not read.
      most: tiles that the canvas has room for; images with more or fewer share its program.
      halo: pixels of a result that a neighbour gives instead, where tiles meet; None: results
        overlap and are blended.
    """

    window: int
    margin: int
    starts: tuple[int, ...]
    canvas: int
    halo: int | None
    most: int

    @property
    def result(self) -> int:
        """Pixels that a tile gives, from its own first pixel in the image on."""
        return self.window - 2 * self.margin


@dataclass(frozen=True)
class Grid:
    """Tiles in both directions.

    Attributes:
      mode: how the image is extended: by its "edge", or mirrored without it ("reflect").
    """

    rows: Axis
    columns: Axis
    mode: Literal["edge", "reflect"]

    @property
    def window(self) -> tuple[int, int]:
        return self.rows.window, self.columns.window

    @property
    def tiles(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def exact(self) -> bool:
        """Every pixel is one tile's, as the whole image would have it: nothing is blended."""
        axes = (self.rows, self.columns)
        return all(len(axis.starts) == 1 or axis.halo is not None for axis in axes)

    def canvas(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "y x c"]:
        """The image, extended on all sides."""
        sides = zip(image.shape, (self.rows, self.columns), strict=False)
        y, x = (extended(np.arange(a.canvas) - a.margin, n, self.mode) for n, a in sides)
        return image.take(y, 0).take(x, 1)  # several times as fast as image[y[:, None], x]


def extended(
    place: Int[np.ndarray | Array, "n"], length: Any, mode: Literal["edge", "reflect"]
) -> Int[np.ndarray | Array, "n"]:
    """The pixels of an axis that stand at these places, of which 0 to length - 1 are its own.

    "reflect" turns back at the edge pixel without repeating it, as often as need be.
    """
    if mode == "edge" or length == 1:
        return place.clip(0, length - 1)
    return length - 1 - abs(place % (2 * length - 2) - (length - 1))


def exact(
    length: int, window: int, *, margin: int, halo: int, cell: int, shared: bool = False
) -> Axis:
    """Tiles whose results, put side by side, are the whole canvas's.

    Args:
      length: of the whole image's canvas; it and `window` are sizes that the net takes.
      halo: results nearer than this to a cut differ from the whole's; whole cells.
      cell: pixels of the coarsest map's cells; of a cut canvas a window holds one at least, beside
        halos and margins.
      shared: leave room for as many tiles as the next power of two.
    """
    last = length - window
    step = (window - 2 * margin - 2 * halo) // cell * cell
    if last and step < cell:
        raise AssertionError(f"a window of {window} gives no whole cell of {cell}")
    number = -(-last // max(step, cell)) + 1
    starts = tuple(min(i * step, last) for i in range(number))
    most = 1 << (number - 1).bit_length() if shared else number
    return Axis(window, margin, starts, window + (most - 1) * step, halo, most)


def blended(length: int, window: int, cell: int) -> Axis:
    """Tiles spread evenly, each overlapping the next by half, to a cell (Isensee et al. 2021)."""
    last, step = length - window, max(window // 2, 1)
    number = -(-last // step) + 1
    starts = tuple(i * last // max(number - 1, 1) // cell * cell for i in range(number))
    most = 1 << (number - 1).bit_length()
    return Axis(window, 0, starts, window + (most - 1) * step, None, most)


def part(length: int, number: int, *, halo: int, cell: int) -> int:
    """Whole cells, in pixels, of each of `number` equal parts of `length` that share halos."""
    total = length // cell * cell + 2 * halo * (number - 1)  # every part has the odd end besides
    return max(-(-total // (number * cell)) * cell, 2 * halo + cell)


@lru_cache(maxsize=256)
def shares(axis: Axis, factor: int = 1) -> Float32[np.ndarray, "tiles result"]:
    """Weight of each tile's results; over all tiles they add up to 1 at every pixel that is given.

    0 or 1 where tiles are exact. Blended, `bell_of` the tile divided by the sum over tiles.

    Args:
      factor: pixels of the result for one of the canvas.
    """
    place = np.arange(axis.result)
    if axis.halo is None:
        bell, total = bell_of(axis.result), np.zeros(axis.canvas, np.float32)
        for start in axis.starts:
            total[start : start + axis.result] += bell
        weights = np.stack([bell / total[s : s + axis.result] for s in axis.starts])
    else:
        firsts = [start + axis.halo * (start > 0) for start in axis.starts]
        ends = [*firsts[1:], axis.starts[-1] + axis.result]
        place = np.array(axis.starts)[:, None] + place
        weights = (np.array(firsts)[:, None] <= place) & (place < np.array(ends)[:, None])
    return np.repeat(weights, factor, axis=1).astype(np.float32)


def bell_of(length: int) -> Float32[np.ndarray, "{length}"]:
    """A Gaussian about a tile's middle with a standard deviation of an eighth of the tile, as
    nnU-Net has it."""
    place = np.arange(length) - (length - 1) / 2
    return np.exp(-0.5 * (place / (length / 8)) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Sight:
    """What decides where a net's tiles may stand.

    Attributes:
      margin: rows and columns of the input that the logits lack at either end; 0 if padded.
      cell: pixels of the coarsest map's cells: by multiples of them may a tile be shifted.
      halo: whole cells, in pixels: results nearer than this to a cut differ from the whole's.
    """

    margin: tuple[int, int]
    cell: int
    halo: int

    @property
    def padded(self) -> bool:
        return self.margin == (0, 0)

    @property
    def block(self) -> int:
        """Images are filled up to multiples of it."""
        return max(BUCKET, self.cell)


@lru_cache(maxsize=64)
def sight(model: EncoderDecoder, channels: int = 3, shrink: int = 1) -> Sight:
    """Of every size of image alike."""
    geo, cell = geometry(model, (BUCKET, BUCKET), channels), max(model.encoder.receptive_fields())
    # A cell is not centred on its pixels.
    reach = geo.receptive_field + cell if geo.margin == (0, 0) else 0
    return Sight(geo.margin, cell, -(-(reach + 2 * (shrink > 1)) // (2 * cell)) * cell)


def window_of(model: EncoderDecoder, own: Sight, tile: int) -> tuple[int, int]:
    """Rows and columns that are read for tiles of that side: a size that the net takes."""
    least = (
        2 * (own.halo + own.margin[0]) + own.cell
    )  # less would give no pixel that is the whole's
    side = -(-tile // own.cell) * own.cell if own.padded else max(tile, least)
    return next_good_size(model, (side, side))


def plan(
    model: EncoderDecoder,
    shape: tuple[int, ...],
    *,
    shrink: int = 1,
    memory: float = 2.0,
    tile: int = 0,
) -> Grid:
    """The tiles in which `predict` reads an image (h, w, c); of the shrunk image where it shrinks.

    Raises:
      InputError: not even the smallest part fits the memory.
    """
    if tile < 0:
        raise InputError(f"tile wants a number of pixels, or 0 for as large as fits; got {tile}")
    height, width, channels = shape
    own = sight(model, channels, shrink)
    margin, halo, cell, padded = own.margin, own.halo, own.cell, own.padded
    filled = (-(-bucket(n) // own.block) * own.block for n in (height, width))
    whole = next_good_size(model, tuple(n + 2 * m for n, m in zip(filled, margin, strict=True)))
    if tile:
        window = tuple(map(min, window_of(model, own, tile), whole))
    else:
        window, held = _fitting(model, whole, channels, own, memory)
        if held > memory * 2**30:
            rows, columns = window
            least = f"the {rows} rows of its lowest band"
            if not padded:
                least = f"its smallest tile of {rows} x {columns}"
            raise InputError(
                f"an image {width} pixels wide wants {held / 2**30:.2g} GiB for {least}; "
                f"got {memory}: allow more --memory"
            )
    if tile and padded and window != whole:
        axes = [blended(*sizes, cell) for sizes in zip(whole, window, strict=True)]
    else:
        sides = zip(whole, window, margin, strict=True)
        rule = {"halo": halo, "cell": cell, "shared": tile > 0}
        axes = [exact(n, w, margin=m, **rule) for n, w, m in sides]
    return Grid(*axes, "edge" if padded else "reflect")


@lru_cache(maxsize=1024)
def _fitting(
    model: EncoderDecoder,
    whole: tuple[int, int],
    channels: int,
    own: Sight,
    memory: float,
) -> tuple[tuple[int, int], int]:
    """The window of the fewest equal parts whose maps fit, or the smallest; and its bytes.

    A padded net's canvas is cut into bands of rows, an unpadded net's again and again across its
    longer side: the squarest tiles read least twice.
    """
    margin, halo, cell, parts, window = own.margin, own.halo, own.cell, [1, 1], list(whole)
    lowest = next_good_size(model, tuple(2 * halo + cell + 2 * m for m in margin))
    while (held := forward_memory(model, (*window, channels))) > memory * 2**30:
        wanted, start = math.prod(window) * memory * 2**30 / held, tuple(window)
        while tuple(window) == start or math.prod(window) > wanted:
            axis = 0 if own.padded or window[0] >= window[1] else 1
            if window[axis] <= lowest[axis]:
                break
            parts[axis] += 1
            inner = whole[axis] - 2 * margin[axis]
            rows = part(inner, parts[axis], halo=halo, cell=cell) + 2 * margin[axis]
            window[axis] = min(whole[axis], next_good_size(model, (rows, rows))[axis])
        if tuple(window) == start:
            break
    return tuple(window), held
