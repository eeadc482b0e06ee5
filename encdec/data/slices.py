"""Slices of a drawn volume of cells, in the manner of electron microscopy: no download.

Cells fill the volume as a power diagram, bent by a smooth field, with dark membranes between them.
A slice is as thick as the step to the next, so membranes that lie obliquely in it are blurred.
Mitochondria are dark and have a rim, and are no membrane: what a threshold takes them for.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int64, Shaped
from scipy import ndimage
from scipy.spatial import cKDTree

from encdec.data.datasets import Dataset
from encdec.data.folders import SPLITS
from encdec.errors import InputError
from encdec.objects import components

THICKNESS = 10.0
"""Pixels from a slice to the next: ISBI 2012 has 50 nm at 4 nm a pixel."""
CELL = 40.0
"""Side in pixels of a cube of a cell's mean volume."""
MEMBRANE = 1.7
"""Half a membrane's width in pixels."""

Places = Float[np.ndarray, "h w 3"]
Field = Float[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class Slices(Dataset):
    """Drawn slices of one volume, 24 as of ISBI 2012; instances are cells.

    Attributes:
      size: rows and columns of a slice.
      slices: of the volume.
      validate: slices [first, last) that are "val", from 0; the others are "train". One block,
        since neighbouring slices look alike.
      seed: of the drawing.
    """

    size: int = 256
    slices: int = 24
    validate: tuple[int, int] = (20, 24)
    seed: int = 0
    classes = ("membrane", "cell")

    @property
    def canvas(self) -> tuple[int, int]:
        return (-(-self.size // self.shrink),) * 2

    def source(self, split: str) -> "Drawn":
        """Raises InputError for another split than train, val, all, or where nothing is left."""
        first, last = self.validate
        if split not in SPLITS:
            raise InputError(
                f"The splits of this set are {', '.join(SPLITS)}; {split!r} came; change "
                "--data.split"
            )
        if self.size < 32 or not 0 <= first < last <= self.slices:
            raise InputError(
                "slices want a size of 32 or more and validation slices 0 <= first < last <= "
                f"{self.slices}; size {self.size}, {first} and {last} came; change --data.size or "
                "--data.validate"
            )
        chosen = (z for z in range(self.slices) if split in ("all", _split(z, self.validate)))
        return Drawn(Volume(self.seed, self.size, self.slices), tuple(chosen))


def _split(index: int, validate: tuple[int, int]) -> str:
    return "val" if validate[0] <= index < validate[1] else "train"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A source over a volume; each slice is drawn once, when it is first wanted."""

    volume: "Volume"
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Example i: image, label, instances; these are the 4-connected insides of cells."""
        drawn = _slice(self.volume, self.chosen[i])
        return {name: array.copy() for name, array in drawn.items()}

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return f"drawn slice {self.chosen[i]} of seed {self.volume.seed}"


@dataclasses.dataclass(frozen=True)
class Volume:
    """Cells in space; places are (z, y, x) in pixels.

    Attributes:
      seed: of all that is drawn.
      size: rows and columns.
      slices: `THICKNESS` pixels apart.
    """

    seed: int
    size: int
    slices: int

    def draw(self, index: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Slice `index`: image uint8 (size, size, 3), grey; label uint8 and instances int32 (size,
        size): 0 on membranes, inside of cells 1, or 1, 2, …."""
        steps = [self._bent(THICKNESS * (index + part)) for part in (-0.35, 0.0, 0.35)]
        near = [self._nearest(places) for places in steps]
        inside = near[1][1] > MEMBRANE
        image = self._shades(np.random.default_rng((self.seed, 1, index)), near, steps[1])
        return {
            "image": np.repeat(image[..., None], 3, -1),
            "label": inside.astype(np.uint8),
            "instances": components(inside),
        }

    @functools.cached_property
    def _cells(self) -> cKDTree:
        """Centres (z, y, x, √-weight): the fourth coordinate makes cells of several sizes."""
        rng = np.random.default_rng((self.seed, 0))
        low = np.full(3, -CELL)
        high = np.array([THICKNESS * self.slices, self.size, self.size]) + CELL
        count = round(float(np.prod((high - low) / CELL)))
        centres, weights = rng.uniform(low, high, (count, 3)), rng.uniform(0, 0.8, (count, 1))
        return cKDTree(np.concatenate([centres, CELL * weights], 1))

    @functools.cached_property
    def _organelles(self) -> list[tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 3"]]]:
        """Middles of mitochondria, two a cell at most, and what makes each ellipsoid a ball."""
        rng, centres = np.random.default_rng((self.seed, 2)), self._cells.data[:, :3]
        found = []
        for _ in range(2):
            n = len(centres)
            turn, _ = np.linalg.qr(rng.normal(size=(n, 3, 3)))
            radii = rng.uniform((6, 6, 9), (9, 10, 18), (n, 3))
            middle = centres + rng.normal(0, 0.2 * CELL, (n, 3))
            middle[rng.random(n) < 0.4] = np.inf  # has none
            found.append((middle, turn / radii[..., None]))
        return found

    def _bent(self, depth: float) -> Places:
        """Places in the unbent volume of a plane's pixels."""
        rng = np.random.default_rng((self.seed, 3))
        shape = (round(THICKNESS * self.slices / CELL) + 4, *[round(self.size / CELL) + 4] * 2)
        line = np.arange(self.size, dtype=np.float64)
        at = np.stack(np.meshgrid([depth], line, line, indexing="ij"), 0)[:, 0]
        nodes = [
            ndimage.map_coordinates(rng.normal(0, 11, shape), at / CELL + 1.5, order=3)
            for _ in range(3)
        ]
        return np.moveaxis(at + np.stack(nodes), 0, -1)

    def _nearest(self, places: Places) -> tuple[Int64[np.ndarray, "h w"], Field]:
        """Of every pixel its cell, and the distance to the membrane between it and the next."""
        flat = np.pad(places.reshape(-1, 3), ((0, 0), (0, 1)))
        distance, cell = self._cells.query(flat, k=2)
        apart = self._cells.data[cell[:, 0], :3] - self._cells.data[cell[:, 1], :3]
        apart = np.linalg.norm(apart, axis=1)
        to_next = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
        shape = places.shape[:2]
        return cell[:, 0].reshape(shape), to_next.reshape(shape)

    def _shades(
        self,
        rng: np.random.Generator,
        near: list[tuple[Int64[np.ndarray, "h w"], Field]],
        places: Places,
    ) -> Shaped[np.ndarray, "h w"]:
        """Grey values: what lies in cells, membranes through the slice's thickness, noise."""
        cell, margin = near[1]
        shape = cell.shape
        own = np.random.default_rng((self.seed, 4)).normal(0, 0.035, len(self._cells.data))
        light = 0.68 + own[cell] + 0.5 * _grain(rng, shape, 1.2) + 0.9 * _grain(rng, shape, 5.0)
        for middle, ball in self._organelles:
            with np.errstate(invalid="ignore"):  # infinitely far
                away = np.einsum("hwij,hwj->hwi", ball[cell], places - middle[cell])
            reach = np.nan_to_num(np.linalg.norm(away, axis=-1), nan=np.inf)
            body = np.clip(6 * (1 - reach), 0, 1) * np.clip((margin - 3) / 1.5, 0, 1)
            folds = np.where(reach < 2, np.sin(9 * np.nan_to_num(away[..., 0], posinf=0)), 0)
            rim = np.exp(-(((reach - 0.9) / 0.13) ** 2))
            light -= body * (0.24 + 0.08 * folds + 0.24 * rim)
        dark = sum(np.exp(-((margin / MEMBRANE) ** 2)) for _, margin in near) / len(near)
        firm = np.clip(0.5 + 2.5 * _grain(rng, shape, 14.0), 0.25, 0.65)  # stained unevenly
        light -= firm * dark
        light = ndimage.gaussian_filter(light, 0.7) + rng.normal(0, 0.06, shape)
        return np.clip(255 * light, 0, 255).astype(np.uint8)


def _grain(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> Field:
    """Noise of that width in pixels; its deviation is 0.1."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), width, mode="reflect")
    return 0.1 * field / field.std()


@functools.lru_cache(maxsize=64)
def _slice(volume: Volume, index: int) -> dict[str, Shaped[np.ndarray, "..."]]:
    return volume.draw(index)
