"""The command line: `encdec COMMAND …`, and `python experiments/NAME.py [COMMAND] …`."""

import dataclasses
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jaxlib
import numpy as np
import tyro

from encdec import hosts
from encdec.compare import Compare, compare_command
from encdec.completion import Completion, completion_command
from encdec.data.biomedical import DSB2018, ISBI, ChaseDB1
from encdec.data.check import check
from encdec.data.datasets import (
    TFDS,
    CamVid,
    Dataset,
    Folder,
    Shapes,
    VOCSegmentation,
    cache_folder,
)
from encdec.data.detection import (
    BCCD,
    COCODetection,
    ShapesDetection,
    TFDSDetection,
    VOCDetection,
)
from encdec.data.slices import Slices
from encdec.data.stuff import COCOStuff
from encdec.data.tracking import CellTracking
from encdec.doctor import Doctor, doctor_command
from encdec.errors import CheckpointError, InputError, visible
from encdec.evaluate import evaluate, evaluator
from encdec.experiment import Experiment, load
from encdec.export import Export as ExportProgram
from encdec.export import program_command
from encdec.figures.command import draw_command
from encdec.flags import nearest, parse
from encdec.grid import kept_in
from encdec.guide import overview
from encdec.predictions import Predict, predict_command
from encdec.speed import said_step
from encdec.summary import summary
from encdec.train.loop import run, variables_of
from encdec.train.stop import Stopped
from encdec.weights.commands import Export, Import, export_command, import_command

DATASETS: dict[str, type[Dataset]] = {
    "shapes": Shapes,
    "camvid": CamVid,
    "voc": VOCSegmentation,
    "isbi_em": ISBI,
    "dsb2018": DSB2018,
    "chase_db1": ChaseDB1,
    "cell_tracking": CellTracking,
    "coco_stuff": COCOStuff,
    "slices": Slices,
    "folder": Folder,
    "tfds": TFDS,
    "shapes_detection": ShapesDetection,
    "bccd": BCCD,
    "voc_detection": VOCDetection,
    "coco_detection": COCODetection,
    "tfds_detection": TFDSDetection,
}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train; or, the folder holding this very run already, go on with it.

    Attributes:
      workdir: the run folder.
      record: file to add the scores to, with the command, the commit, the time and the machine; it
        may hold other runs.
    """

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    workdir: Path
    record: Path | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """A run; every field of its experiment is a flag too: `--run FOLDER --help` lists them.

    Attributes:
      run: folder of a finished or interrupted run.
    """

    run: Path


def train_command(args: list[str], experiment: Experiment) -> None:
    """train: see `Train`."""
    default = Train(experiment, Path("runs") / Path(sys.argv[0]).stem)
    asked = parse(Train, args, default=default)
    if asked.experiment.deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if asked.record is None:
        run(asked.experiment, asked.workdir)
    else:
        kept_in(asked.record, asked.experiment, asked.workdir)


def evaluate_command(args: list[str]) -> None:
    """evaluate: score a run on a split (--data.split) of any folder (--data.root)."""
    experiment, folder = _experiment(args, "evaluate")
    variables = variables_of(experiment, folder)
    scores = evaluate(experiment, variables, evaluator(experiment))
    said: dict[str, Any] = {"run": str(folder), "split": experiment.data.split}
    if experiment.tta:
        said["tta"] = experiment.tta
    names = experiment.task.names(experiment.data.classes)
    for name, value in sorted(scores.items(), key=lambda score: "/" in score[0]):
        kind, _, number = name.partition("/")
        name = f"{kind}/{names[int(number)]}" if number.isdigit() else name  # not "ap/0.75"
        said[name] = value if np.isfinite(value) else None
    if hosts.is_first():
        print(json.dumps(said))


def summary_command(args: list[str], experiment: Experiment | None = None) -> None:
    """summary: layers, parameters, FLOPs, geometry, memory and time of a step."""
    experiment = (
        parse(Experiment, args, default=experiment)
        if experiment
        else _experiment(args, "summary")[0]
    )
    model, size, batch = experiment.model, experiment.augment.size, experiment.batch
    print(summary(model, size, batch=batch, optimizer=experiment.optimizer))
    print(said_step(model, size, batch, experiment.steps))


def check_command(args: list[str]) -> None:
    """check: name every bad file of a data set: encdec check folder --root DIR."""
    if args in (["-h"], ["--help"]):
        print("usage: encdec check DATASET …   (each has --help), of " + ", ".join(DATASETS))
        return
    if not args or args[0] not in DATASETS:
        came = f"{args[0]}{nearest(args[0], DATASETS)}" if args else "nothing"
        raise InputError(f"wanted one of {', '.join(DATASETS)} after check; got {came}")
    asked = parse(check_kind(DATASETS[args[0]]), args[1:], prog=f"encdec check {args[0]}")
    try:
        faults = check(asked.data, asked.splits)
    except InputError as error:
        raise InputError(str(error).replace("--data.", "--")) from error
    print("\n".join([*faults, f"{len(faults)} fault(s)"]).replace("--data.", "--"))
    if faults:
        raise SystemExit(2)


def check_kind(kind: type[Dataset]) -> type:
    """The flags of `encdec check` for a kind of data."""

    @dataclasses.dataclass(frozen=True)
    class Check:
        data: Annotated[kind, tyro.conf.arg(name="")]
        splits: tuple[str, ...] = ("train", "val")

    return Check


def flags_of(commands: Iterable[str]) -> dict[str, Any]:
    """What `completion` completes each command by; one that is not here by its name alone."""
    known = {"evaluate": Run, "summary": Run, "predict": Predict, "doctor": Doctor}
    known |= {"import-weights": Import, "export-weights": Export, "completion": Completion}
    known |= {"compare": Compare, "export": ExportProgram}
    known["check"] = {name: check_kind(kind) for name, kind in DATASETS.items()}
    return {name: known.get(name) for name in commands}


def _experiment(args: list[str], command: str) -> tuple[Experiment, Path]:
    """The experiment of --run, with the other flags changed; --help lists these with --run."""
    asking = [flag for flag in args if flag in ("-h", "--help")]
    if "--run" in args:
        args = [flag for flag in args if flag not in asking]
    asked, rest = parse(Run, args, return_unknown_args=True, prog=f"encdec {command}")
    prog = f"encdec {command} --run {asked.run}"
    return parse(Experiment, rest + asking, default=load(asked.run), prog=prog), asked.run


def quicken() -> None:
    """What makes a start and a CPU's steps faster, for entry points alone: importing encdec
    changes nothing.

    Compiled programs are kept in the cache folder, unless JAX_COMPILATION_CACHE_DIR names
    another. Without YNN fusions more than one core works in a convolution's gradient (jaxlib
    0.10); XLA_FLAGS that mention them are left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "ynn_fusion" not in flags and jaxlib.__version__.startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_experimental_ynn_fusion_type=".strip()
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))


def guarded(action: Callable[[], Any]) -> None:
    """Runs an entry point: wrong input is one line and exit code 2, without a traceback."""
    quicken()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        hosts.join()
        try:
            action()
        finally:
            sys.stdout.flush()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(stopped.code) from None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 3 if isinstance(error, CheckpointError) else 2
        hosts.leave(code)
        raise SystemExit(code) from None
    except BrokenPipeError:  # who read what was printed, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        hosts.leave(141)
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        hosts.leave(130)
        raise SystemExit(130) from None
    except Exception:  # the others may be waiting for this one
        if jax.process_count() > 1:
            traceback.print_exc()
            print(hosts.LOST, file=sys.stderr)
        hosts.leave(1)
        raise


def main(experiment: Experiment | dict[str, Experiment] | None = None) -> None:
    """`encdec …`; or, with an experiment, the command line of its script, which trains.

    Of several, one is chosen by its word before all else; without a word the first.
    """
    words, args = [], sys.argv[1:]
    if isinstance(experiment, dict):
        words = list(experiment)
        experiment = experiment[args.pop(0) if args[:1] and args[0] in words else words[0]]
    commands = {"evaluate": evaluate_command, "predict": predict_command, "check": check_command}
    commands |= {"import-weights": import_command, "export-weights": export_command}
    commands["compare"] = compare_command
    commands["doctor"] = partial(doctor_command, datasets=DATASETS)
    commands["completion"] = partial(completion_command, kinds=partial(flags_of, commands))
    commands["export"] = program_command
    commands["summary"] = partial(summary_command, experiment=experiment)
    commands["draw"] = partial(draw_command, experiment=experiment)
    if experiment is not None:
        commands["train"] = partial(train_command, experiment=experiment)
    if experiment is not None and (not args or args[0].startswith("-") or ":" in args[0]):
        args = ["train", *args]
    if not args or args[0] not in commands:
        if args and args[0] not in ("-h", "--help"):
            known = [*words, *commands]
            said = (
                f"error: wanted one of {', '.join(known)}; got {args[0]}{nearest(args[0], known)}"
            )
            print(visible(said), file=sys.stderr)
            raise SystemExit(2)
        docs = {name: getattr(action, "func", action).__doc__ for name, action in commands.items()}
        print(overview({name: doc.splitlines()[0].split(": ", 1)[1] for name, doc in docs.items()}))
        return
    guarded(lambda: commands[args[0]](args[1:]))
