"""Flips and quarter turns of an image at test time: scores are averaged after being turned back."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Shaped

from encdec.errors import InputError

Turn = Literal["flip", "flip_rows", "rotate90"]
"""Left to right, top to bottom, by a quarter against the clock."""

Version = tuple[int, int, int]
"""0 or 1 each: transpose, then flip rows, flip columns."""

TURNS: dict[str, Version] = {"flip": (0, 0, 1), "flip_rows": (0, 1, 0), "rotate90": (1, 1, 0)}

Outputs = dict[str, Float32[Array, "_ _ _"]]


def versions(turns: tuple[str, ...]) -> tuple[Version, ...]:
    """All that the turns generate: both flips make four, a quarter turn four, with a flip eight.

    Raises:
      InputError: there is no such turn.
    """
    if unknown := set(turns) - set(TURNS):
        raise InputError(f"tta wants some of {', '.join(TURNS)}; got {', '.join(sorted(unknown))}")
    found = [(0, 0, 0)]
    for transposed, rows, columns in found:  # grows as it is read
        for turn in turns:
            also, more_rows, more_columns = TURNS[turn]
            moved = (columns, rows) if also else (rows, columns)
            version = (transposed ^ also, moved[0] ^ more_rows, moved[1] ^ more_columns)
            if version not in found:
                found.append(version)
    return tuple(found)


def averaged(
    outputs: Callable[[Array], Outputs],
    pixels: Shaped[Array, "h w c"],
    versions: tuple[Version, ...],
) -> Outputs:
    """Mean of the outputs for all versions, each turned back; one version's maps at a time.

    Versions with equal sides are walked by one loop, so that the net is compiled once or twice.
    """
    if versions == ((0, 0, 0),):
        return outputs(pixels)
    means = []
    for transposed in sorted({version[0] for version in versions}):
        seen = pixels.swapaxes(0, 1) if transposed else pixels
        flips = np.array([version[1:] for version in versions if version[0] == transposed], bool)

        def add(sums: Outputs, flip: Array, seen: Array = seen) -> tuple[Outputs, None]:
            found = outputs(_flipped(seen, flip))
            share = {name: _flipped(x, flip) / len(versions) for name, x in found.items()}
            return jax.tree.map(jnp.add, sums, share), None

        shapes = jax.eval_shape(outputs, seen)
        sums, _ = lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), flips)
        means.append({n: x.swapaxes(0, 1) if transposed else x for n, x in sums.items()})
    return jax.tree.map(lambda *parts: sum(parts), *means)


def _flipped(x: Shaped[Array, "h w c"], flip: Shaped[Array, "2"]) -> Shaped[Array, "h w c"]:
    """Rows first, then columns; again, it is undone."""
    x = jnp.where(flip[0], x[::-1], x)
    return jnp.where(flip[1], x[:, ::-1], x)
