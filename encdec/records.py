"""What the runs of a script found, in one file that outlives their folders: tables and pages are
made of it, and a run that stands in it is not run again."""

import json
import shlex
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from encdec import hosts
from encdec.errors import InputError
from encdec.experiment import Experiment, from_json, to_json
from encdec.report import history
from encdec.table import Row
from encdec.train.folder import environment, facts, write_whole

MACHINE = ("commit", "machine", "devices", "python", "jax")
"""Of a run's environment."""

PLACES = ("--workdir", "--record", "--data.root")
"""Flags that change no result."""

STARTS = ("--weights", "--start")
"""Flags of folders whose names say what is in them."""


class Record:
    """Runs by form and seed, and the tables made of them.

    The file holds "title", "command", "experiments" by form (every field but the seed and where the
    data lie), "tables", "findings" and "runs"; a run its "form", "seed", "steps", "batch",
    "scores", "seconds", "images_per_s" and "memory_mib" (null where not measured), and its
    environment.

    Args:
      path: of the file; it may be there.

    Raises:
      InputError: the file is there and is no such.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self.runs: dict[tuple[str, int], dict[str, Any]] = {}
        self.experiments: dict[str, Any] = {}
        self._take(path)

    def _take(self, path: Path) -> None:
        """What stands in the file, under what is known already."""
        if path.exists():
            found = read(path)
            ours = {form for form, _ in self.runs}
            runs = {(run["form"], run["seed"]): run for run in found["runs"]}
            for key, run in runs.items():
                form = key[0]
                if form not in ours or found["experiments"][form] == self.experiments[form]:
                    self.runs.setdefault(key, run)
                    self.experiments.setdefault(form, found["experiments"][form])

    def run(self, form: str, experiment: Experiment) -> dict[str, Any] | None:
        """What stands here of this very run, whoever ran it; None if nothing does."""
        found = self.runs.get((form, experiment.seed))
        same = found is not None and known(self.experiments[form]) == plain(experiment)
        return found if same else None

    def add(
        self, form: str, experiment: Experiment, folder: Path, scores: dict, seconds: float | None
    ) -> None:
        """Writes what a run that has ended found, beside what others wrote meanwhile."""
        lines, about = history(folder), facts(folder)
        speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
        memory = [line["memory_mib"] for line in lines if "memory_mib" in line]
        if form in self.experiments and known(self.experiments[form]) != plain(experiment):
            self.runs = {key: run for key, run in self.runs.items() if key[0] != form}
        self.experiments[form] = plain(experiment)
        self.runs[form, experiment.seed] = {
            "form": form,
            "seed": experiment.seed,
            "steps": experiment.steps,
            "batch": experiment.batch,
            "scores": {name: round(score, 6) for name, score in scores.items()},
            "seconds": seconds,
            "images_per_s": round(statistics.median(speeds), 2) if speeds else None,
            "memory_mib": max(memory, default=None),
            "command": placeless(about.get("command", "")),
        } | {name: about[name] for name in MACHINE if name in about}
        self.write()

    def write(self, tables: Sequence[tuple[str, list[Row]]] = (), findings: Sequence = ()) -> None:
        """The file, whole or not at all.

        Raises:
          InputError: it cannot be written.
        """
        self._take(self.path)
        if not hosts.is_first():
            return
        content = {
            "title": self.title,
            "command": placeless(environment()["command"]),
            "tables": [{"title": title, "rows": rows} for title, rows in tables],
            "findings": list(map(str, findings)),
            "runs": [self.runs[key] for key in sorted(self.runs)],
            "experiments": {form: self.experiments[form] for form in sorted(self.experiments)},
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; make room, or give another file"
            ) from error


def placeless(command: str) -> str:
    """The command without the flags that say where files lie; a folder of weights that it starts
    from is kept, by its name alone unless it is given from the working directory down."""
    try:
        words = shlex.split(command)
    except ValueError:  # a lone quote, from before words were quoted
        words = command.split()
    words, kept = iter(words), []
    for word in words:
        flag, _, value = word.partition("=")
        if flag in PLACES + STARTS and "=" not in word:
            value = next(words, "")
        if flag in STARTS:
            folder = Path(value)
            inside = not folder.anchor and ".." not in folder.parts and value[:1] != "~"
            kept += [flag, folder.as_posix() if inside else folder.name]
        elif flag not in PLACES:
            kept.append(word)
    return shlex.join(kept)


def read(path: Path) -> dict[str, Any]:
    """What `Record.write` wrote.

    Raises:
      InputError: the file cannot be read, or is none of these.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(path.read_text("utf-8"))
        if all(
            {"seed", "scores"} <= set(run) and run["form"] in found["experiments"]
            for run in found["runs"]
        ):
            return found
    raise InputError(f"{path} is no record of runs: restore it, or name another file")


def plain(experiment: Experiment) -> Any:
    """Every field but the seed and where the data lie, as JSON; of `start` the folder's name."""
    if experiment.start is not None:
        experiment = replace(experiment, start=Path(experiment.start.name))
    fields = json.loads(json.dumps(to_json(experiment)))
    del fields["seed"]
    fields["data"].pop("root", None)
    return fields


def known(fields: Any) -> Any:
    """The same of a record, as this version writes it: fields that are new have their defaults."""
    try:
        return plain(from_json(fields))
    except InputError:  # written by another version
        return None
