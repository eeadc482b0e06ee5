"""Images to predict: files, folders and globs, made into one list; and read ahead of their use."""

import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from encdec.data.images import SUFFIXES, read_pages
from encdec.errors import InputError

MADE_BY = "predictions.json"
"""What a folder of predictions has; no image in it is one to predict."""

AHEAD = 3
"""Pages that are read while another is predicted."""


@dataclass(frozen=True)
class Listed:
    """An image to predict.

    Attributes:
      path: its file.
      name: what its results are called after, and lie by: below the folder that was given, with "/"
        between folders; of a file that was given itself its name alone.
    """

    path: Path
    name: str

    @property
    def stem(self) -> str:
        """The name without the suffix of the file."""
        name = PurePosixPath(self.name)
        return str(name.parent / name.stem)


@dataclass(frozen=True)
class Page:
    """A page of a file; a file that is no stack has one.

    Attributes:
      pages: of the file.
      image: RGB, 0 to 255; None where it cannot be read.
      wrong: why it cannot.
    """

    file: Listed
    number: int = 0
    pages: int = 1
    image: UInt8[np.ndarray, "h w 3"] | None = None
    wrong: InputError | None = None


def listed(given: Sequence[Path], out: Path) -> tuple[Listed, ...]:
    """The files that are named by files, folders (with all below them) and globs, each once.

    Of folders and globs the files count that have an image's suffix and are not hidden, in the
    order of their names; what lies in `out` is no image to predict.

    Raises:
      InputError: there is nothing of that name, or a glob's "**/.." would lead out of --out.
    """
    found: dict[str, Listed] = {}
    for path in given:
        if os.path.isdir(path):
            own = [Listed(file, file.relative_to(path).as_posix()) for file in _below(path)]
        elif os.path.lexists(path):
            found.setdefault(os.path.abspath(path), Listed(path, path.name))
            continue
        elif glob.has_magic(str(path)):
            own = list(_matching(path))
        else:
            raise InputError(f"{path}: wanted an image; there is no such file or folder")
        kept = [one for one in own if _is_image(one.path) and not _is_in(one.path, out)]
        if not kept:
            wanted = ", ".join(sorted(SUFFIXES))
            raise InputError(
                f"wanted images ({wanted}); {path} has none: name their files, their folder or a "
                "glob in quotes"
            )
        for one in kept:
            found.setdefault(os.path.abspath(one.path), one)
    return tuple(found.values())


def _below(folder: Path) -> Iterator[Path]:
    """Files of a folder and all below it, but for hidden folders and those of predictions."""

    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename}: wanted a folder that can be read; {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=stop):
        if MADE_BY in files:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files))


def _matching(pattern: Path) -> Iterator[Listed]:
    """Files of a glob, named from its first part with a wildcard on."""
    first = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    if ".." in pattern.parts[first:]:
        raise InputError(
            f"{pattern}: a glob without '..' after its wildcard is wanted: results would lie "
            "outside of --out; name the folder instead"
        )
    base = Path(*pattern.parts[:first])
    for found in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(found)
        yield Listed(path, path.relative_to(base).as_posix())


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and os.path.isfile(path)


def _is_in(path: Path, folder: Path) -> bool:
    inside, outer = real(path.parent), real(folder)
    return inside == outer or inside.startswith(os.path.join(outer, ""))


@lru_cache(maxsize=4096)
def real(folder: Path) -> str:
    """The folder's one true name, without links."""
    return os.path.realpath(folder)


def read_ahead(files: Iterable[Listed]) -> Iterator[Page]:
    """The pages of all files in their order, read by a thread a few before they are wanted.

    What cannot be read is a page that says so, the last of its file.
    """
    pages = _read(files)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, pages, None) for _ in range(AHEAD))
        while (page := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, pages, None))
            yield page


def _read(files: Iterable[Listed]) -> Iterator[Page]:
    for file in files:
        try:
            for number, (pages, image) in enumerate(read_pages(file.path)):
                yield Page(file, number, pages, image)
        except InputError as error:
            yield Page(file, wrong=error)
