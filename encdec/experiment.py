"""What a run is: a frozen dataclass of objects, each field a flag, written and read as JSON."""

import importlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flax import linen as nn

from encdec.data.augment import Augment
from encdec.data.datasets import Dataset
from encdec.errors import InputError
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.tasks.task import Task
from encdec.train.optimizer import Optimizer
from encdec.turns import Turn, versions


@dataclass(frozen=True)
class Experiment:
    """A training run.

    Attributes:
      steps: batches to train on.
      batch: images of the global batch, over all devices and hosts.
      seed: of the initial weights, the order of the data, the augmentation and the dropout.
      log_every: steps between two lines of progress.
      evaluate_every: steps between two evaluations; 0: at the end only.
      save_every: steps between two checkpoints; the last step is always saved.
      keep: newest checkpoints to keep, beside the best one.
      patience: steps in a row that are not finite, all of which change nothing, before the run
        stops; counted when it says or saves something.
      tta: turns of each image whose scores are averaged, with all that they make together, where a
        segmentation is scored, image by image then; `encdec predict` takes the same unless told
        otherwise. So U-Net's paper scores its EM result (§4). No detector has it.
      remat: save an accelerator's memory: keep only the maps of each stride for the gradient, and
        compute what is between them again, at most one more forward pass. XLA ignores it on a CPU.
      start: folder of a run, whose newest checkpoint counts, or of weights (`encdec.weights`); it
        gives the parameters that this model has too, and the rest starts anew. So FCN-16s starts
        from FCN-32s, with a score layer of zeros.
      driver: "jit" over a mesh of all devices, or "pmap".
      deterministic: the same bits of every run on a GPU, at some cost; a CPU's are always the same.
        From the command line; elsewhere XLA_FLAGS wants --xla_gpu_deterministic_ops=true before JAX
        starts a device.
      tensorboard: write TensorBoard events too (extra `log`).
      wandb: write to Weights & Biases too (extra `wandb`); offline with WANDB_MODE=offline.
      pictures: how many of the split's images TensorBoard and W&B get with what is predicted, at
        each evaluation.
    """

    model: EncoderDecoder
    data: Dataset
    augment: Augment
    task: Task
    optimizer: Optimizer = Optimizer()
    steps: int = 1000
    batch: int = 8
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 0
    save_every: int = 200
    keep: int = 2
    patience: int = 10
    tta: tuple[Turn, ...] = ()
    remat: bool = False
    start: Path | None = None
    driver: Literal["jit", "pmap"] = "jit"
    deterministic: bool = False
    tensorboard: bool = False
    wandb: bool = False
    pictures: int = 4

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed must not be negative; got {self.seed}")
        if self.pictures < 0:
            raise InputError(f"--pictures must not be negative; got {self.pictures}")
        for name in ("steps", "batch", "log_every", "save_every", "keep", "patience"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}"
                )
        if len(versions(self.tta)) > 1 and not isinstance(self.task, Segment):
            raise InputError(
                "a detector sees the image once: leave --tta out; got " + ", ".join(self.tta)
            )


def check_classes(experiment: Experiment) -> None:
    """Raises InputError unless data, model and task speak of the same classes."""
    names, head, task = experiment.data.classes, experiment.model.head, experiment.task
    if head.classes != task.logits or not task.fits(len(names)):
        flag = "--model.head.box.classes" if hasattr(head, "box") else "--model.head.classes"
        right = task if task.fits(len(names)) else replace(task, classes=len(names))
        more = ", …" * (len(names) > 4)
        raise InputError(
            f"data of {len(names)} classes ({', '.join(names[:4])}{more}) want --task.classes "
            f"{right.classes} and {flag} {right.logits}; got --task.classes {task.classes} and "
            f"{flag} {head.classes}"
        )
    masks = getattr(task, "masks", None)
    if masks is not None and masks != (getattr(head, "mask", None) is not None):
        raise InputError(
            "a head with masks wants a task with them, and the other way round: say "
            f"--task.masks {not masks}, or change --model.head.mask"
        )


def to_json(value: Any) -> Any:
    """Objects as {"is": "module:Class", field: …}: enough to rebuild them without their script."""
    if is_dataclass(value):
        kind = type(value)
        named = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        # Where a module stands, not what it is; an optimizer's name is what it is.
        linen = {"parent", "name"} if isinstance(value, nn.Module) else set()
        return {"is": f"{kind.__module__}:{kind.__qualname__}"} | {
            name: to_json(field) for name, field in named.items() if name not in linen
        }
    if isinstance(value, Path):
        return {"is": "pathlib:Path", "path": str(value)}
    return [to_json(item) for item in value] if isinstance(value, tuple | list) else value


def from_json(value: Any) -> Any:
    """The object that `to_json` wrote. Only encdec's own classes are made; nothing else is run.

    Raises:
      InputError: another class, or fields that it does not have.
    """
    try:
        return _made(value)
    except InputError:
        raise
    except Exception as error:  # what classes raise whose fields are of other types
        raise InputError(
            f"the run was written by another version of encdec, or changed since: {error!r:.200}"
        ) from error


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_made(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value["is"] == "pathlib:Path":
        return Path(value["path"])
    module, _, name = value["is"].partition(":")
    kind = None
    if module.split(".")[0] == "encdec":
        with suppress(ImportError):
            kind = getattr(importlib.import_module(module), name, None)
    own = is_dataclass(kind) and isinstance(kind, type) and kind.__module__.startswith("encdec.")
    if not own:
        raise InputError(f"wanted a class of encdec, got {value['is']}: use the run's own script")
    return kind(**{name: _made(field) for name, field in value.items() if name != "is"})


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Flags whose values differ between two experiments as JSON."""
    kinds = {value.get("is") if isinstance(value, dict) else None for value in (old, new)}
    if len(kinds) == 1 and kinds.isdisjoint({None, "pathlib:Path"}):
        names = sorted(old.keys() | new.keys())
        pairs = [(old.get(n), new.get(n), f"{path}.{n}" if path else n) for n in names]
        return [line for pair in pairs for line in differences(*pair)]
    return [] if old == new else [f"--{path.replace('_', '-')}"]


def load(run: Path) -> Experiment:
    """The experiment of a run folder.

    Raises:
      InputError: the folder is no run.
    """
    experiment = None
    if (path := run / "experiment.json").is_file():
        try:
            written = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):  # cut short, or not ours
            written = None
        if isinstance(written, dict) and "is" in written:
            experiment = from_json(written)
    if not isinstance(experiment, Experiment):
        inside = [
            path.parent for deep in ("*", "*/*") for path in run.glob(f"{deep}/experiment.json")
        ]
        more = f", such as {min(inside)}" if inside else ""
        raise InputError(
            f"wanted a run folder with its experiment.json whole; got {run}: name another{more}"
        )
    return experiment


def title(run: Path) -> str:
    """The name of a run's folder; of a grid's run with that of its row."""
    run = run.resolve()
    return f"{run.parent.name}-{run.name}" if re.fullmatch(r"seed\d+", run.name) else run.name


def load_run(folder: Path) -> tuple[Experiment, Any]:
    """The experiment of a run folder, and the variables of its newest checkpoint: to predict with.

    Raises:
      InputError: the folder is no run, or has no checkpoint.
    """
    from encdec.train.loop import variables_of  # orbax takes a while to import

    experiment = load(folder)
    return experiment, variables_of(experiment, folder)
