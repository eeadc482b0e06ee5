"""The command line: `encdec COMMAND …`, and `python experiments/NAME.py [COMMAND] …`."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jaxlib
import numpy as np
import tyro
from PIL import Image

from encdec import visualize
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
from encdec.data.folders import read_image
from encdec.errors import InputError
from encdec.evaluate import evaluate, evaluator
from encdec.experiment import Experiment, load
from encdec.flags import parse
from encdec.predict import predict, programs
from encdec.summary import summary
from encdec.train.loop import run, variables_of
from encdec.turns import Turn
from encdec.weights.commands import export_command, import_command

DATASETS: dict[str, type[Dataset]] = {
    "shapes": Shapes,
    "camvid": CamVid,
    "voc": VOCSegmentation,
    "isbi_em": ISBI,
    "dsb2018": DSB2018,
    "chase_db1": ChaseDB1,
    "folder": Folder,
    "tfds": TFDS,
}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train; or, the folder holding this very run already, go on with it.

    Attributes:
      workdir: the run folder.
    """

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    workdir: Path


@dataclasses.dataclass(frozen=True)
class Run:
    """A run; every field of its experiment is a flag too, --data.split and --data.root first.

    Attributes:
      run: folder of a finished or interrupted run.
    """

    run: Path


@dataclasses.dataclass(frozen=True)
class Predict:
    """Write the label map and an overlay of each image.

    Attributes:
      images: files to segment.
      run: folder of a run.
      out: folder for <image>_mask.png (class ids) and <image>_overlay.png.
      memory: GiB that an image's maps may take; a larger one is read in parts, to the same labels.
      tile: side in pixels of the parts instead; a padded net's are blended, which is approximate.
      tta: turns of the image whose scores are averaged, with all that they make together.
      scales: of the image, whose scores are averaged too.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    run: Path
    out: Path = Path("predictions")
    memory: float = 2.0
    tile: int = 0
    tta: tuple[Turn, ...] = ()
    scales: tuple[float, ...] = (1.0,)


def train_command(args: list[str], experiment: Experiment) -> None:
    """train: see `Train`."""
    default = Train(experiment, Path("runs") / Path(sys.argv[0]).stem)
    asked = parse(Train, args, default=default)
    run(asked.experiment, asked.workdir)


def evaluate_command(args: list[str]) -> None:
    """evaluate: score a run on a split (--data.split) of any folder (--data.root)."""
    experiment, folder = _experiment(args)
    variables = variables_of(experiment, folder)
    scores = evaluate(experiment, variables, evaluator(experiment))
    named = {
        f"iou/{name}": scores.pop(f"iou/{i}") for i, name in enumerate(experiment.data.classes)
    }
    head = {"run": str(folder), "split": experiment.data.split}
    finite = {
        name: value if np.isfinite(value) else None for name, value in (scores | named).items()
    }
    print(json.dumps(head | finite))


def predict_command(args: list[str]) -> None:
    """predict: write masks and overlays of images."""
    asked = parse(Predict, args)
    experiment = load(asked.run)
    if not asked.images:
        raise InputError("predict wants images: encdec predict IMAGE … --run RUN; got none")
    stems: dict[str, Path] = {}
    for path in asked.images:
        read_image(path)  # a bad one shows before anything is written
        if (other := stems.setdefault(path.stem, path)) != path:
            raise InputError(
                f"{other} and {path} would write one {path.stem}_mask.png: predict them into two "
                "folders (--out)"
            )
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out wants a folder that can be made; {asked.out}: {error.strerror}"
        ) from error
    variables, before = variables_of(experiment, asked.run), programs()
    for path in asked.images:
        image = read_image(path)
        labels = predict(
            experiment.model,
            variables,
            image,
            shrink=experiment.data.shrink,
            memory=asked.memory,
            tile=asked.tile,
            tta=asked.tta,
            scales=asked.scales,
        )
        labels = labels.astype(np.uint8)
        picture = visualize.overlay(image, labels, len(experiment.data.classes))
        for kind, array in (("mask", labels), ("overlay", picture)):
            target = asked.out / f"{path.stem}_{kind}.png"
            Image.fromarray(array).save(target)
            print(target)
    compiled = programs() - before
    print(f"images: {len(asked.images)}; programs compiled: {compiled}", file=sys.stderr)


def summary_command(args: list[str], experiment: Experiment | None = None) -> None:
    """summary: layers, parameters, FLOPs, geometry, memory of a run's or a script's model."""
    experiment = parse(Experiment, args, default=experiment) if experiment else _experiment(args)[0]
    batch, optimizer = experiment.batch, experiment.optimizer
    print(summary(experiment.model, experiment.augment.size, batch=batch, optimizer=optimizer))


def check_command(args: list[str]) -> None:
    """check: name every bad file of a data set: encdec check folder --root DIR."""
    if not args or args[0] not in DATASETS:
        raise InputError(
            f"wanted one of {', '.join(DATASETS)} after check; got {' '.join(args) or 'nothing'}"
        )

    @dataclasses.dataclass(frozen=True)
    class Check:
        data: Annotated[DATASETS[args[0]], tyro.conf.arg(name="")]
        splits: tuple[str, ...] = ("train", "val")

    asked = parse(Check, args[1:])
    try:
        faults = check(asked.data, asked.splits)
    except InputError as error:
        raise InputError(str(error).replace("--data.", "--")) from error
    print("\n".join([*faults, f"{len(faults)} fault(s)"]).replace("--data.", "--"))
    if faults:
        raise SystemExit(2)


def _experiment(args: list[str]) -> tuple[Experiment, Path]:
    """The experiment of --run, with the other flags changed."""
    asked, rest = parse(Run, args, return_unknown_args=True)
    return parse(Experiment, rest, default=load(asked.run)), asked.run


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


def join_hosts() -> None:
    """Joins the hosts that ENCDEC_HOSTS names: "auto" (TPU pod, Slurm), or "ADDRESS:PORT,N,I".

    Raises:
      InputError: it says something else.
    """
    hosts = os.environ.get("ENCDEC_HOSTS")
    if hosts == "auto":
        jax.distributed.initialize()
    elif hosts:
        try:
            address, number, index = hosts.split(",")
            number, index = int(number), int(index)
        except ValueError:
            raise InputError(
                f'ENCDEC_HOSTS wants "auto" or "ADDRESS:PORT,NUMBER OF HOSTS,INDEX"; got {hosts!r}'
            ) from None
        jax.distributed.initialize(address, number, index)


def guarded(action: Callable[[], Any]) -> None:
    """Runs an entry point: wrong input is one line and exit code 2, without a traceback."""
    quicken()
    try:
        join_hosts()
        action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


def main(experiment: Experiment | None = None) -> None:
    """`encdec …`; or, with an experiment, the command line of its script, which trains."""
    commands = {"evaluate": evaluate_command, "predict": predict_command, "check": check_command}
    commands |= {"import-weights": import_command, "export-weights": export_command}
    commands["summary"] = summary_command
    if experiment is not None:
        commands["train"] = lambda args: train_command(args, experiment)
        commands["summary"] = lambda args: summary_command(args, experiment)
    args = sys.argv[1:]
    if experiment is not None and (not args or args[0].startswith("-") or ":" in args[0]):
        args = ["train", *args]
    if not args or args[0] not in commands:
        lines = [action.__doc__ for action in dict.fromkeys(commands.values())]
        if args and not args[0].startswith("-"):
            print(f"error: wanted one of {', '.join(commands)}; got {args[0]}", file=sys.stderr)
        print("usage: encdec COMMAND …   (each has --help)\n  " + "\n  ".join(lines))
        print("To train: python experiments/NAME.py, or experiments/compare.py")
        raise SystemExit(0 if args in ([], ["-h"], ["--help"]) else 2)
    guarded(lambda: commands[args[0]](args[1:]))
