"""A grid of runs, forms of a network by seeds: trained, put beside a paper's figures, and asked
which of the paper's orderings hold.

    record = Record(workdir / "record.json", "A title")
    grid, rows = recorded({form: experiments_of(form) for form in forms}, workdir, record), []
    for form, runs in grid.items():
        rows.append({"form": form} | measured(runs, SCORES, PAPER[form]))
    orderings = [Ordering("FCN-16s", "FCN-32s", "mean_iou", PAPER)]
    finish(record, "scores", rows, judged(grid, orderings))
"""

import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scipy.special import stdtrit

from encdec import hosts
from encdec.errors import InputError, visible
from encdec.experiment import Experiment, load
from encdec.records import Record
from encdec.sections import named
from encdec.table import Row, spread, table
from encdec.train.folder import InUse, locked, write_whole
from encdec.train.loop import run
from encdec.train.page import saved
from encdec.train.stop import Stopped

WAIT = 10.0
"""Seconds between two looks at the runs of other processes."""

SECONDS = "seconds.json"
"""In a run's folder: the seconds that it took."""


@dataclass(frozen=True)
class Cell:
    """A run that has ended.

    Attributes:
      scores: of its last evaluation, NaN where nothing was there to be scored.
      seconds: by the clock, compiling and evaluating included, of every start that ended by itself
        or was stopped; None where it was trained by other means than `cell`.
    """

    folder: Path
    scores: dict[str, float]
    seconds: float | None


Grid = dict[str, tuple[Cell, ...]]
"""By name of a form its runs, a seed each."""


def cell(experiment: Experiment, folder: Path) -> Cell:
    """The run of that folder: as it is if it has ended, else `encdec.train.loop.run`.

    A run that has ended is not opened again: environment.json keeps the command, the commit and
    the machine that trained it.

    Raises:
      InputError: as `run`.
    """
    mine = {"scores": _ended(experiment, folder), "noted": seconds_of(folder) is not None}
    first = hosts.exchange(mine)[0]
    if scores := first["scores"]:
        if not first["noted"]:
            with locked(folder):  # whoever trained it may still be at its report
                pass
        if hosts.is_first():
            print(f"{visible(str(folder))}: has ended before", flush=True)
        return Cell(folder, scores, seconds_of(folder))
    before, began = seconds_of(folder) or 0.0, time.perf_counter()
    try:
        scores = run(experiment, folder)
    except Stopped:
        _note(folder, before + time.perf_counter() - began)
        raise
    _note(folder, before + time.perf_counter() - began)
    return Cell(folder, scores, seconds_of(folder))


def trained(
    forms: dict[str, Sequence[Experiment]], workdir: Path, record: Record, *, wait: bool = True
) -> None:
    """Runs what the record lacks, in workdir/form/seed0, …, the first seed of every form first, and
    records it.

    A run that another process is at is left to it, and waited for at the end: processes that are
    given the same command and share the folder, share the runs.

    Args:
      wait: False: what others are at is not waited for.
    """
    every = [(form, one) for form, seeds in forms.items() for one in seeds]
    left = sorted(every, key=lambda pair: pair[1].seed)
    while left:
        others = []
        for form, one in left:
            folder = folder_of(workdir, form, one.seed)
            if record.run(form, one) is not None:
                continue
            try:
                found = cell(one, folder)
            except InUse:
                others.append((form, one))
            else:
                record.add(form, one, folder, found.scores, found.seconds)
        left = others if wait else []
        if left:
            print(f"waiting for {len(left)} run(s) of other processes", flush=True)
            time.sleep(WAIT)


def kept_in(path: Path, experiment: Experiment, folder: Path) -> None:
    """As `cell`; and a row of the record's table, by the folder's name."""
    record = Record(path, f"{type(experiment.data).__name__}, {Path(sys.argv[0]).name}")
    found = cell(experiment, folder)
    record.add(folder.name, experiment, folder, found.scores, found.seconds)
    rows = []
    for (form, seed), one in sorted(record.runs.items()):
        row: Row = {"run": form, "command": one["command"], "seed": seed, "steps": one["steps"]}
        row["minutes"] = None if one["seconds"] is None else one["seconds"] / 60
        scores = one["scores"].items()
        rows.append(row | {named(name): score for name, score in scores if "/" not in name})
    record.write([("scores", rows)])


def recorded(forms: dict[str, Sequence[Experiment]], workdir: Path, record: Record) -> Grid:
    """As `trained`; returns the scores that stand in the record."""
    trained(forms, workdir, record)
    grid: Grid = {}
    for form, seeds in forms.items():
        runs = [(folder_of(workdir, form, one.seed), record.run(form, one)) for one in seeds]
        grid[form] = tuple(Cell(folder, run["scores"], run["seconds"]) for folder, run in runs)
    return grid


def folder_of(workdir: Path, form: str, seed: int) -> Path:
    """Where `trained` keeps a run."""
    return workdir / re.sub(r"\W+", "_", form) / f"seed{seed}"


def _ended(experiment: Experiment, folder: Path) -> dict[str, float]:
    """The scores of this very run; nothing where it has not ended, or is another."""
    found = saved(folder)
    with suppress(InputError):  # no experiment.json, or one of another version
        if found is not None and load(folder) == experiment:
            return found.scores
    return {}


def seconds_of(folder: Path) -> float | None:
    """What the run of a folder took so far; None where nobody has noted it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((folder / SECONDS).read_text("utf-8"))["seconds"])
    return None


def _note(folder: Path, seconds: float) -> None:
    if hosts.is_first():
        write_whole(folder / SECONDS, json.dumps({"seconds": round(seconds, 1)}) + "\n")


def measured(
    runs: Sequence[Cell],
    scores: Iterable[str],
    paper: dict[str, float] | None = None,
    name: Callable[[str], str] = str,
) -> Row:
    """Columns of a form's row: each score over its seeds, the paper's figure to the right of it.

    Args:
      paper: figures by score, in percent, as papers print them; a score that it lacks is a dash.
        None: without such columns.
      name: what the column of a score is called: `encdec.sections.named`, or the score itself.
    """
    row: Row = {}
    for score in scores:
        row[name(score)] = spread([one.scores[score] for one in runs])
        if paper is not None:
            figure = paper.get(score)
            row[f"{name(score)}, paper"] = None if figure is None else round(figure / 100, 6)
    return row


def interval(values: Sequence[float], level: float = 0.95) -> float | tuple[float, float] | None:
    """(mean, half of the interval) in which the mean lies at that level, by Student's t; the value
    of one; None without numbers. Of differences paired by seed: what a change is worth."""
    if not all(map(math.isfinite, values)):
        return None
    if len(values) == 1:
        return values[0]
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return statistics.fmean(values), reach * statistics.stdev(values) / math.sqrt(len(values))


def minutes(runs: Sequence[Cell]) -> float | None:
    """Of one run, the mean over its seeds; None where some are not known."""
    known = [one.seconds for one in runs if one.seconds is not None]
    return statistics.mean(known) / 60 if len(known) == len(runs) else None


@dataclass(frozen=True)
class Ordering:
    """What a paper says of two forms: `better` has the higher `score`.

    Attributes:
      score: as in the scores of a run.
      paper: figures of the paper in percent, by form and score; {} where it has words alone.
    """

    better: str
    worse: str
    score: str
    paper: dict[str, dict[str, float]]

    def figures(self) -> str:
        """The paper's two, or that there are none."""
        both = [self.paper.get(form, {}).get(self.score) for form in (self.better, self.worse)]
        return "in words" if None in both else f"{both[0]:.1f} > {both[1]:.1f}"


@dataclass(frozen=True)
class Finding:
    """An ordering, measured.

    Attributes:
      better, worse, score: as in the `Ordering`.
      paper: its two figures, as text.
      difference: of the means over the seeds, better less worse; None where nothing was there to be
        scored.
      spread: standard deviation of the difference of two runs, one of each form: the root of the
        sum of both variances over the seeds. None where a form has one seed.
      holds: the difference is above 0, and above the spread where there is one.
    """

    better: str
    worse: str
    score: str
    paper: str
    difference: float | None
    spread: float | None
    holds: bool

    def __str__(self) -> str:
        said = f"{self.better} above {self.worse}, {named(self.score)}, paper {self.paper}: "
        if self.difference is None:
            return f"{said}not measured"
        around = "no spread" if self.spread is None else f"± {self.spread:.3f}"
        verdict = "holds" if self.holds else "does not hold"
        if not self.holds and self.spread is not None and -self.difference <= self.spread:
            verdict += ", within the spread"
        return f"{said}{self.difference:+.3f} ({around}): {verdict}"


def judged(grid: Grid, orderings: Iterable[Ordering]) -> list[Finding]:
    """What was measured of each ordering; those of forms that the grid lacks are left out."""
    return [_judge(grid, one) for one in orderings if {one.better, one.worse} <= set(grid)]


def _judge(grid: Grid, one: Ordering) -> Finding:
    both = [[run.scores[one.score] for run in grid[form]] for form in (one.better, one.worse)]
    above, below = map(statistics.fmean, both)
    difference = above - below if math.isfinite(above - below) else None
    deviation = None
    if difference is not None and min(map(len, both)) > 1:
        deviation = math.hypot(*map(statistics.stdev, both))
    return Finding(
        one.better,
        one.worse,
        one.score,
        one.figures(),
        difference,
        deviation,
        holds=difference is not None and difference > (deviation or 0),
    )


def finish(
    record: Record, title: str, rows: list[Row], findings: Sequence[Finding] = ()
) -> list[Row]:
    """Writes the table and the findings into the record, and prints them; returns the rows.

    Raises:
      InputError: the record cannot be written.
    """
    record.write([(title, rows)], findings)
    print(f"\n{table(rows)}")
    for line in ("", *findings) if findings else ():
        print(line)
    return rows
