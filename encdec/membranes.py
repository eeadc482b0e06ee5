"""Membranes of EM slices, scored by the cells that they keep apart: the ISBI 2012 challenge.

Arganda-Carreras et al. (2015), as the challenge's Fiji script has it. p_ij is the share of pixels
in segment i and true cell j, s_i and t_j its sums over j and i. Pixels of true membrane are left
out; a pixel inside a true cell that no segment has is a segment of its own. Ignored pixels are
membrane to truth and segmentation alike.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Int64, Integer
from scipy import ndimage

from encdec.arrays import IGNORE
from encdec.data.fit import Example
from encdec.objects import components, crossing

THRESHOLDS = np.arange(1, 10) / 10  # the script's, without 0 and 1

Sizes = Int64[np.ndarray, "_"]
"""Pixels of each part of a partition."""

Three = Float64[np.ndarray, "3"]
"""A score between two partitions, its split part, its merge part; each 1 if they are the same."""


def measure(interior: Float[np.ndarray, "h w"], example: Example) -> dict[str, np.ndarray]:
    """Sums of one slice, to add over slices and hosts.

    Args:
      interior: probability in [0, 1] of a cell's inside; segments are the 4-connected components
        above a threshold.
      example: "label": 1 inside a cell, 0 on a membrane.

    Returns:
      slices: int64 (1,), 1, or 0 if the slice has no true cell: then it only counts in pixels.
      rand, info: float64 (9, 3), `v_rand` and `v_info` at each threshold after `thinned`.
      pairs: int64 (9, 3), Σ p_ij², Σ s_i², Σ t_j² in squared pixels, without thinning.
      pixels: int64 (9, 3), inside a cell in both, in the segmentation, in the truth.
    """
    label = example["label"]
    interior = np.where(label == IGNORE, 0, interior)
    cells = components(label == 1)
    rows = [_at(interior > threshold, cells) for threshold in THRESHOLDS]
    sums = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {"slices": np.array([int(cells.any())]), **sums}


def _at(mask: Bool[np.ndarray, "h w"], cells: Int32[np.ndarray, "h w"]) -> dict[str, np.ndarray]:
    """What `measure` counts at one threshold."""
    segments, inside = components(mask), cells > 0
    pixels = np.array([(mask & inside).sum(), mask.sum(), inside.sum()])
    if not inside.any():
        nothing = np.zeros(3)
        return {"rand": nothing, "info": nothing, "pairs": 0 * pixels, "pixels": pixels}
    thin = sizes(thinned(segments)[inside], cells[inside])
    pairs = _squares(*sizes(segments[inside], cells[inside]))
    return {"rand": v_rand(*thin), "info": v_info(*thin), "pairs": pairs, "pixels": pixels}


def thinned(segments: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """Grows the segments over the membrane (0) until a line one pixel wide keeps them apart.

    A watershed by flooding, 4-connected (Vincent and Soille 1991; the script's): membrane is
    taken by distance from the segments, and a pixel stays membrane if it touches two of them when
    its turn comes. Of equally far pixels those of even row + column come first, so that two fronts
    never close up on each other; in the script the order of its queue decides.
    """
    width = segments.shape[1] + 2
    steps = np.array([[-width, -1, 1, width]])
    ids = np.pad(segments, 1).ravel()
    free = np.pad(segments == 0, 1).ravel()
    shore = ndimage.binary_dilation(segments > 0) & (segments == 0)
    front = np.flatnonzero(np.pad(shore, 1))
    while front.size:
        free[front] = False
        odd = sum(np.divmod(front, width)) % 2 == 1
        for turn in (front[~odd], front[odd]):
            around = ids[turn[:, None] + steps]
            high = around.max(1)
            ids[turn] = np.where(((around == 0) | (around == high[:, None])).all(1), high, 0)
        next_to = (front[ids[front] > 0][:, None] + steps).ravel()
        front = np.unique(next_to[free[next_to]])
    return ids.reshape(-1, width)[1:-1, 1:-1]


def sizes(
    segments: Integer[np.ndarray, "n"], cells: Integer[np.ndarray, "n"]
) -> tuple[Sizes, Sizes, Sizes]:
    """Pixels of each segment in each cell, of each segment, of each cell; n pixels in cells."""
    alone = segments == 0
    own = segments.max() + np.cumsum(alone)
    table = crossing(np.where(alone, own, segments), cells)
    return table.data, table.sum(1), table.sum(0)


def v_rand(both: Sizes, segment: Sizes, cell: Sizes) -> Three:
    """2 Σp² / (Σs² + Σt²); split part Σp² / Σt², merge part Σp² / Σs²."""
    p, s, t = _squares(both, segment, cell)
    return np.array([2 * p / (s + t), p / t, p / s])


def v_info(both: Sizes, segment: Sizes, cell: Sizes) -> Three:
    """2I / (H(S) + H(T)); split part I / H(S), merge part I / H(T); 1 where nothing can be wrong.

    I = H(S) + H(T) - H(S, T) is the information that segments S and cells T share.
    """
    joint, s, t = _entropy(both), _entropy(segment), _entropy(cell)
    below = np.array([(s + t) / 2, s, t])
    return np.where(below > 0, (s + t - joint) / np.where(below > 0, below, 1), 1.0)


def _squares(both: Sizes, segment: Sizes, cell: Sizes) -> Int64[np.ndarray, "3"]:
    """Ordered pairs of pixels, a pixel with itself too, that share both, a segment, a cell."""
    return np.array([both @ both, segment @ segment, cell @ cell])


def _entropy(pixels: Sizes) -> float:
    """-Σ p log p in nats; what has no pixel adds nothing."""
    shares = pixels[pixels > 0] / pixels.sum()
    return float(-(shares * np.log(shares)).sum())


def scores(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores in [0, 1], each at the threshold that is best for the whole set; NaN without slices.

    v_rand, v_info: the mean over slices, as the challenge's script has them, so that a slice with
    one large cell (p² weighs it by its square) does not decide; `_split` and `_merge`: their parts
    at that threshold, which is `_threshold`. rand_error: 1 - F of the foreground-restricted Rand
    index, pairs added over slices, no thinning; pixel_error: 1 - F of the pixels inside cells. Both
    are the old measures, of the U-Net paper's table 1; lower is better.
    """
    result = {}
    with np.errstate(invalid="ignore"):  # 0 / 0 without slices
        for name in ("rand", "info"):
            means = sums[name] / sums["slices"]
            best = int(means[:, 0].argmax())
            result[f"v_{name}_threshold"] = float(THRESHOLDS[best])
            for part, value in zip(("", "_split", "_merge"), means[best], strict=True):
                result[f"v_{name}{part}"] = float(value)
        for name, key in (("rand_error", "pairs"), ("pixel_error", "pixels")):
            both, found, true = sums[key].T
            result[name] = 1 - float((2 * both / (found + true)).max())
    return result if sums["slices"][0] else dict.fromkeys(result, float("nan"))
