"""What a run is: a frozen dataclass of objects, each field a flag, written and read as JSON."""

import importlib
import json
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from flax import linen as nn

from encdec.data.augment import Augment
from encdec.data.datasets import Dataset
from encdec.errors import InputError
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


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
      remat: save an accelerator's memory: keep only the maps of each stride for the gradient, and
        compute what is between them again, at most one more forward pass. XLA ignores it on a CPU.
      start: folder of a run, whose newest checkpoint counts, or of weights (`encdec.weights`); it
        gives the parameters that this model has too, and the rest starts anew. So FCN-16s starts
        from FCN-32s, with a score layer of zeros.
      driver: "jit" over a mesh of all devices, or "pmap".
      tensorboard: write TensorBoard events too (extra `log`).
    """

    model: EncoderDecoder
    data: Dataset
    augment: Augment
    task: Segment
    optimizer: Optimizer = Optimizer()
    steps: int = 1000
    batch: int = 8
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 0
    save_every: int = 200
    keep: int = 2
    remat: bool = False
    start: Path | None = None
    driver: Literal["jit", "pmap"] = "jit"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed must not be negative; got {self.seed}")
        for name in ("steps", "batch", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}"
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
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value["is"] == "pathlib:Path":
        return Path(value["path"])
    module, _, name = value["is"].partition(":")
    kind = None
    if module.split(".")[0] == "encdec":
        with suppress(ModuleNotFoundError):
            kind = getattr(importlib.import_module(module), name, None)
    if kind is None or not is_dataclass(kind):
        raise InputError(f"wanted a class of encdec, got {value['is']}: use the run's own script")
    try:
        return kind(**{name: from_json(field) for name, field in value.items() if name != "is"})
    except TypeError as error:
        raise InputError(f"the run was written by another version of encdec: {error}") from error


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Flags whose values differ between two experiments as JSON."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("is") == new.get("is"):
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
            experiment = from_json(json.loads(path.read_text()))
        except (json.JSONDecodeError, KeyError):  # cut short, or not ours
            pass
    if not isinstance(experiment, Experiment):
        raise InputError(
            f"wanted a run folder with its experiment.json whole; got {run}: name another"
        )
    return experiment
