"""Several runs side by side: a table, a page and its pictures. `encdec compare RUN RUN …`."""

import json
import math
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from encdec import page_comparison
from encdec.errors import InputError, visible
from encdec.evaluate import Seen, evaluate, evaluator
from encdec.experiment import Experiment, differences, load, to_json
from encdec.flags import parse
from encdec.report import SHOWN, history
from encdec.samples import Sample, ranked, samples
from encdec.sections import named
from encdec.summary import flops, parameters
from encdec.table import Row, spread, table
from encdec.tasks.segment import Segment
from encdec.train.folder import environment, facts, settings
from encdec.train.loop import variables_of
from encdec.train.page import Evaluation, about, by_class, names_of, saved

SAME_IMAGES = ("shrink", "side", "border", "max_boxes", "faults", "max_faults", "canvas")
"""Fields of a data set that do not change which images are scored."""


@dataclass(frozen=True)
class Compare:
    """Compare runs: curves, scores, classes, confusions, the same images by all. Runs that differ
    in --seed alone are one row, with mean and standard deviation.

    Attributes:
      runs: their folders, two or more.
      out: folder for report.html, table.json and the pictures.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path = Path("comparison")


@dataclass(frozen=True)
class Result:
    """A run that is compared: its experiment, the lines of its metrics.jsonl, its last scores."""

    folder: Path
    experiment: Experiment
    lines: list[dict[str, Any]]
    found: Evaluation


Groups = dict[str, list[Result]]
"""By name of a row the runs of each seed: curves, speed and images are those of the first."""


def compare_command(args: list[str]) -> None:
    """compare: a page of several runs: encdec compare RUN RUN …"""
    asked = parse(Compare, args, prog="encdec compare")
    runs = [read(folder) for folder in dict.fromkeys(asked.runs)]
    if len(runs) < 2:
        raise InputError(
            f"compare wants two runs or more: encdec compare RUN RUN …; got {len(runs)}"
        )
    write(grouped(runs), asked.out, title=f"{len(runs)} runs compared")


def read(folder: Path) -> Result:
    """A run of its folder; scored now where it holds no evaluation.json that is whole.

    Raises:
      InputError: the folder is no run; or it is to be scored, and lacks a checkpoint or its data.
    """
    experiment, found = load(folder), saved(folder)
    if found is None:
        print(f"{visible(str(folder))}: scored now, with no evaluation.json", file=sys.stderr)
        variables, seen = variables_of(experiment, folder), Seen()
        scores = evaluate(experiment, variables, evaluator(experiment), None, seen)
        found = Evaluation(scores, seen.confusion, seen.images)
    return Result(folder, experiment, history(folder), found)


def grouped(runs: list[Result]) -> Groups:
    """Runs that differ in their seed alone together, named by what their paths do not share."""
    groups: dict[str, list[Result]] = {}
    for run in runs:
        alike = json.dumps(to_json(replace(run.experiment, seed=0)))
        groups.setdefault(alike, []).append(run)
    paths = []
    for group in groups.values():
        parts = [run.folder.resolve().parts for run in group]
        paths.append(parts[0] if len(parts) == 1 else parts[0][: _alike(parts)])
    start = _alike([path[:-1] for path in paths]) if len(paths) > 1 else len(paths[0]) - 1
    ends = [path[start + 1 :][::-1] for path in paths]
    end = _alike(ends) if len(paths) > 1 else 0
    names = ["/".join(path[start : len(path) - end]) for path in paths]
    return dict(zip(map(visible, names), groups.values(), strict=True))


def _alike(paths: list[tuple[str, ...]]) -> int:
    """How many of the first parts all paths share."""
    same = 0
    while all(len(path) > same for path in paths) and len({path[same] for path in paths}) == 1:
        same += 1
    return same


def write(
    groups: Groups,
    out: Path,
    *,
    title: str,
    intro: str = "",
    design: dict[str, Row] | None = None,
    more: dict[str, str] | None = None,
) -> list[Row]:
    """Writes report.html, table.json and the pictures, prints the table; returns its rows.

    Args:
      intro: a sentence for the page's head; by default, what the data are.
      design: by name, columns of the table on what each model is; by default its size.
      more: facts for the page.

    Raises:
      InputError: some runs segment and others find objects, which have no score in common.
    """
    first = {name: group[0] for name, group in groups.items()}
    _check(first)
    one, alike = next(iter(first.values())).experiment, _same_images(first)
    names = names_of(one)
    shared = all(names_of(run.experiment) == names for run in first.values())
    rows = _rows(groups, design or {name: _size(run) for name, run in first.items()})
    print(f"\n{table(rows)}", flush=True)
    try:
        shown = _samples(first) if alike and shared else []
    except InputError as error:  # the scores are there, and the data may be elsewhere
        more = {"images": f"none: {error}"} | (more or {})
        shown = []
        print(f"no images: {error}", file=sys.stderr)
    tables = {name: _sum(group) for name, group in groups.items()} if shared else {}
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    page_comparison.write_comparison(
        out,
        title=title,
        intro=intro or _intro(first, alike, shared),
        command=environment()["command"],
        rows=rows,
        histories={name: run.lines for name, run in first.items()},
        per_class=_classes(groups, names),
        confusions={name: total for name, total in tables.items() if total is not None},
        samples=shown,
        classes=names,
        facts=(more or {}) | _facts(groups),
        settings={name: "\n".join(settings(run.folder).values()) for name, run in first.items()},
        changes=None if design else _changes(first),
        kind=one.task.by_class,
    )
    print(visible(str(out / "report.html")))
    return rows


def _check(runs: dict[str, Result]) -> None:
    kinds: dict[bool, str] = {}
    for name, run in runs.items():
        kinds.setdefault(isinstance(run.experiment.task, Segment), name)
    if len(kinds) > 1:
        raise InputError(
            f"runs that have scores in common are wanted; {kinds[True]} segments and "
            f"{kinds[False]} finds objects: compare them apart"
        )


def _same_images(runs: dict[str, Result]) -> bool:
    """Whether all were scored on the same images."""
    data = [to_json(run.experiment.data) for run in runs.values()]
    kept = [{k: v for k, v in one.items() if k not in SAME_IMAGES} for one in data]
    return all(one == kept[0] for one in kept)


def _intro(runs: dict[str, Result], alike: bool, shared: bool) -> str:
    data = next(iter(runs.values())).experiment.data
    if alike:
        return f"All scored on {type(data).__name__}, split {data.split}."
    lacks = "images" if shared else "images, confusions, classes of other names"
    return f"Scored on different data: scores are of different images; without {lacks}."


def _size(run: Result) -> Row:
    model, size = run.experiment.model, run.experiment.augment.size
    return {"parameters": sum(parameters(model).values()), "GFLOPs": flops(model, size) / 1e9}


def _rows(groups: Groups, design: dict[str, Row]) -> list[Row]:
    """A row for each group: what it is, its speed, and the scores that all have."""
    scores = [
        name
        for name in SHOWN
        if all(name in run.found.scores for group in groups.values() for run in group)
    ]
    rows = []
    for name, group in groups.items():
        lines = group[0].lines
        speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
        memory = [line["memory_mib"] for line in lines if "memory_mib" in line]
        rows.append(
            {
                "model": name,
                **design[name],
                "images/s": statistics.median(speeds) if speeds else None,
                "memory MiB": max(memory, default=None),
                **{named(s): spread([run.found.scores[s] for run in group]) for s in scores},
            }
        )
    return rows


def _classes(groups: Groups, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """By model the score of each class that all have, the mean of its seeds."""
    every = {}
    for model, group in groups.items():
        own = [by_class(run.experiment, run.found.scores) for run in group]
        every[model] = {
            name: statistics.mean(one.get(name, math.nan) for one in own) for name in own[0]
        }
    common = [name for name in names if all(name in own for own in every.values())]
    return {model: {name: own[name] for name in common} for model, own in every.items()}


def _sum(group: list[Result]) -> Any:
    """The confusions of all seeds."""
    tables = [run.found.confusion for run in group]
    return None if any(one is None for one in tables) else sum(tables)


def _samples(runs: dict[str, Result]) -> list[Sample]:
    """The worst, median and best images by the mean of the runs' scores, predicted by all."""
    first, *others = (run.found.images for run in runs.values())
    means = {
        i: statistics.mean([score, *(one[i] for one in others)])
        for i, score in first.items()
        if all(i in one for one in others)
    }
    words, shown = ranked(means), {}
    for name, run in runs.items():
        variables = variables_of(run.experiment, run.folder)
        step = evaluator(run.experiment)
        for sample in samples(run.experiment, variables, step, tuple(words), None, name):
            known = shown.setdefault(sample["number"], about(sample, words, means, run.experiment))
            known["predictions"] |= sample["predictions"]
    return [one for one in shown.values() if len(one["predictions"]) == len(runs)]


def _changes(runs: dict[str, Result]) -> list[Row]:
    """A row for each flag in which the experiments differ."""
    written = {name: to_json(run.experiment) for name, run in runs.items()}
    one, *others = written.values()
    flags = dict.fromkeys(flag for other in others for flag in differences(one, other))
    return [
        {"flag": flag} | {name: _value(json, flag) for name, json in written.items()}
        for flag in flags
    ]


def _value(written: Any, flag: str) -> str | None:
    """What an experiment says at a flag; None where it has no such field."""
    for part in flag.removeprefix("--").split("."):
        fields = {key.replace("_", "-"): value for key, value in written.items()}
        if not isinstance(written := fields.get(part), dict):
            break
    if isinstance(written, dict):
        return str(written.get("path") or written["is"].rpartition(":")[2])
    return None if written is None else json.dumps(written)


def _facts(groups: Groups) -> dict[str, str]:
    """What the runs ran on: once where it is the same of all, else by run."""
    known = {
        name if len(group) == 1 else f"{name}, seed {run.experiment.seed}": facts(run.folder)
        for name, group in groups.items()
        for run in group
    }
    found = {}
    for key in dict.fromkeys(key for own in known.values() for key in own):
        values = {name: own.get(key, "unknown") for name, own in known.items()}
        one, *others = dict.fromkeys(values.values())
        by_run = "\n".join(f"{name}: {value}" for name, value in values.items())
        found[key] = by_run if others else one
    return found
