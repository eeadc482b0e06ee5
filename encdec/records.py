"""What the runs of a script found, in one file that outlives their folders: tables and pages are
made of it, and a run that stands in it is not run again."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from encdec.errors import InputError
from encdec.experiment import Experiment, to_json
from encdec.report import history
from encdec.table import Row
from encdec.train.folder import environment, facts, write_whole

MACHINE = ("command", "commit", "machine", "devices", "python", "jax")
"""Of a run's environment."""

PLACES = ("--workdir", "--record", "--data.root")
"""Flags that change no result."""


class Record:
    """Runs by form and seed, and the tables made of them.

    The file holds "title", "command", "runs", "tables" and "findings"; a run its "form", "seed",
    the "experiment" (a digest of every field), "steps", "batch", "scores", "seconds",
    "images_per_s" and "memory_mib" (null where not measured), and its environment.

    Args:
      path: of the file; it may be there.

    Raises:
      InputError: the file is there and is no such.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self.runs = {run["experiment"]: run for run in read(path)["runs"]} if path.exists() else {}

    def scores(self, experiment: Experiment) -> dict[str, float] | None:
        """Of this very run, whoever ran it; None where nobody has."""
        found = self.runs.get(digest(experiment))
        return None if found is None else found["scores"]

    def run(self, experiment: Experiment) -> dict[str, Any]:
        """What stands here of a run."""
        return self.runs[digest(experiment)]

    def add(
        self, form: str, experiment: Experiment, folder: Path, scores: dict, seconds: float | None
    ) -> None:
        """Writes what a run that has ended found, beside what others wrote meanwhile."""
        lines, about = history(folder), facts(folder)
        speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
        memory = [line["memory_mib"] for line in lines if "memory_mib" in line]
        self.runs[digest(experiment)] = {
            "form": form,
            "seed": experiment.seed,
            "experiment": digest(experiment),
            "steps": experiment.steps,
            "batch": experiment.batch,
            "scores": {name: round(score, 6) for name, score in scores.items()},
            "seconds": seconds,
            "images_per_s": round(statistics.median(speeds), 2) if speeds else None,
            "memory_mib": max(memory, default=None),
        } | {name: about[name] for name in MACHINE if name in about}
        self.runs[digest(experiment)]["command"] = placeless(about.get("command", ""))
        self.write()

    def write(self, tables: Sequence[tuple[str, list[Row]]] = (), findings: Sequence = ()) -> None:
        """The file, whole or not at all.

        Raises:
          InputError: it cannot be written.
        """
        if self.path.exists():
            self.runs = {run["experiment"]: run for run in read(self.path)["runs"]} | self.runs
        content = {
            "title": self.title,
            "command": placeless(environment()["command"]),
            "tables": [{"title": title, "rows": rows} for title, rows in tables],
            "findings": list(map(str, findings)),
            "runs": sorted(self.runs.values(), key=lambda run: (run["form"], run["seed"])),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; make room, or give another file"
            ) from error


def placeless(command: str) -> str:
    """The command as anybody can give it: without the flags that say where files lie."""
    words, kept = iter(command.split()), []
    for word in words:
        if word.partition("=")[0] in PLACES:
            if "=" not in word:
                next(words, None)
        else:
            kept.append(word)
    return " ".join(kept)


def read(path: Path) -> dict[str, Any]:
    """What `Record.write` wrote.

    Raises:
      InputError: the file cannot be read, or is none of these.
    """
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict) and all(
            isinstance(run, dict) and {"form", "seed", "experiment", "scores"} <= set(run)
            for run in found.get("runs", [None])
        ):
            return found
    raise InputError(f"{path} is no record of runs: restore it, or name another file")


def digest(experiment: Experiment) -> str:
    """Of every field but where the data lie."""
    fields = json.loads(json.dumps(to_json(experiment)))
    fields["data"].pop("root", None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
