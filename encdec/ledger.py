"""What is done in a folder of predictions: what made it, and a line for each image that is done.

predictions.json says of which run and settings the folder is. predictions-0.jsonl, …-1.jsonl
and so on are each one host's, so that no two write one file. A line is written when all of an
image's files are in their places; one that a killed process has cut off does not count.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from encdec.coco_results import FILES
from encdec.data.listing import MADE_BY, Listed
from encdec.errors import InputError
from encdec.train.folder import write_whole

Stamp = tuple[int, int]
"""Bytes of a file, and when it was changed, in ns."""


class Ledger:
    """The lines of a folder.

    Args:
      made_by: run and settings, which all in the folder has been made by.
    """

    def __init__(self, out: Path, made_by: dict[str, Any]) -> None:
        self.out = out
        self.made_by = json.loads(json.dumps(made_by))
        self.lines: Any = None

    def check(self, would_write: Iterable[Path]) -> None:
        """Nothing is written yet.

        Args:
          would_write: what is to be written to the folder.

        Raises:
          InputError: the folder has predictions of another run or settings, or files of others in
            the places of ours.
        """
        path = self.out / MADE_BY
        if path.is_file():
            try:
                before = json.loads(path.read_text("utf-8"))
                before["run"], before["settings"].items()
            except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{path} cannot be read: give another --out, or delete the folder"
                ) from None
            settings, ours = before["settings"], self.made_by["settings"]
            names = sorted(k for k in settings.keys() | ours if settings.get(k) != ours.get(k))
            other = [f"other --{', --'.join(names)}"] if names else []
            if before["run"] != self.made_by["run"]:
                other.append("another run, or one that was trained on")
            if other:
                raise InputError(
                    f"{self.out} holds predictions of {' and of '.join(other)}: give the same to "
                    "go on with it, or another --out"
                )
            return
        for path in would_write:
            if os.path.lexists(path):
                raise InputError(
                    f"{path} is there, in a folder that predict did not begin, and would be "
                    "written over: give another --out"
                )

    def begin(self, files: Sequence[Listed]) -> list[int]:
        """Puts all lines into one file, and says which of the files are still to be done.

        A file is done if its line is there, the files that the line names too, and it has not been
        changed since. Only one process may be at it.

        Raises:
          InputError: a line is of another file that had the same name.
        """
        place = self.out / MADE_BY
        if not place.is_file():
            _replace(place, [json.dumps(self.made_by, indent=1)])
        wanted = {file.name: (i, file) for i, file in enumerate(files)}
        done: set[int] = set()
        seen: set[str] = set()

        def kept() -> Iterator[str]:
            for _, _, text, line in self.read():
                name = line["name"]
                if name in seen:
                    continue
                if name in wanted:
                    i, file = wanted[name]
                    if not self._is_done(line, file):
                        continue
                    done.add(i)
                seen.add(name)
                yield text

        logs = self._logs()
        _replace(self._log(0), kept())
        for log in logs:
            if log != self._log(0):
                log.unlink()
        return [i for i in range(len(files)) if i not in done]

    def _is_done(self, line: dict[str, Any], file: Listed) -> bool:
        if line["path"] != os.path.abspath(file.path):
            raise InputError(
                f"{self.out} holds predictions of {line['path']}, and those of {file.path} would "
                "take their place: give another --out"
            )
        there = all(os.path.lexists(self.out / str(written)) for written in line["files"])
        return there and tuple(line["stamp"]) == stamp(file)

    def note(self, host: int, file: Listed, before: Stamp, written: list[Path], more: dict) -> None:
        """Adds the line of an image that is done.

        Args:
          before: the file's stamp when it was read.
          more: what else the line says.
        """
        if self.lines is None:
            self.lines = self._log(host).open("a")
        line = {
            "name": file.name,
            "path": os.path.abspath(file.path),
            "stamp": before,
            "files": [path.relative_to(self.out).as_posix() for path in written],
        }
        self.lines.write(json.dumps(line | more, separators=(",", ":")) + "\n")
        self.lines.flush()

    def close(self) -> None:
        """Lets the other hosts see this one's lines, on any file system."""
        if self.lines is not None:
            self.lines.close()
            self.lines = None

    def read(self) -> Iterator[tuple[Path, int, str, dict[str, Any]]]:
        """File, place in it, text and content of every whole line."""
        for log in self._logs():
            with log.open("rb") as lines:
                place = 0
                for text in lines:
                    line = _line(text)
                    if line is not None:
                        yield log, place, text.decode().rstrip("\n"), line
                    place += len(text)

    def join(self, files: Sequence[Listed]) -> list[Path]:
        """Writes COCO's results of all lines; "image_id" counts the images, and pages, from 1.

        The first are `files`, in their order; what else the folder has comes after them.
        """
        places = {}
        for log, place, _, line in self.read():
            places.setdefault(line["name"], (log, place, list(line.get("coco", {}))))
        kinds = [by for by in FILES if any(by in own for _, _, own in places.values())]
        names = dict.fromkeys([file.name for file in files] + sorted(places))
        written = []
        for by in kinds:
            path = self.out / FILES[by]
            _replace(path, _as_list(self._entries(names, places, by)))
            written.append(path)
        return written

    def _entries(self, names: dict, places: dict, by: str) -> Iterator[str]:
        number = 1
        for name in names:
            line: dict[str, Any] = {}
            if name in places:
                log, place, _ = places[name]
                with log.open("rb") as lines:
                    lines.seek(place)
                    line = json.loads(lines.readline())
            for entry in line.get("coco", {}).get(by, []):
                shifted = entry | {"image_id": number + entry["image_id"]}
                yield json.dumps(shifted, separators=(",", ":"))
            number += line.get("pages", 1)

    def _log(self, host: int) -> Path:
        return self.out / f"predictions-{host}.jsonl"

    def _logs(self) -> list[Path]:
        return sorted(self.out.glob("predictions-*.jsonl"))


def _line(text: bytes) -> dict[str, Any] | None:
    """What a line says; None of one that was cut off."""
    kinds = {"name": str, "path": str, "stamp": list, "files": list}
    try:
        line = json.loads(text)
        whole = text.endswith(b"\n") and all(isinstance(line[k], t) for k, t in kinds.items())
        return line if whole else None
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def stamp(file: Listed) -> Stamp:
    """Of the file as it is; (0, 0) where there is none."""
    try:
        facts = os.stat(file.path)
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _as_list(entries: Iterator[str]) -> Iterator[str]:
    before = "["
    for entry in entries:
        yield before + entry
        before = ","
    yield before + "]" if before == "[" else "]"


def _replace(path: Path, lines: Iterable[str]) -> None:
    """Lines take the place of the file's."""
    try:
        write_whole(path, (f"{line}\n" for line in lines))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; make room for it") from error
