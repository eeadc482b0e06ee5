"""Where the lines of a run go beside the console: metrics.jsonl, metrics.csv, TensorBoard, W&B.

A line is {"step": int, name: number, split: {name: number}, …}; what is not finite is None.
"""

import csv
import io
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from encdec.errors import InputError
from encdec.train.folder import write_whole
from encdec.visualize import Picture

Line = dict[str, Any]


class Sink:
    """One place for lines and pictures: `Jsonl`, `Csv`, `TensorBoard`, `WandB`.

    Calls come in this order: once `resume`, then `write` and `show` by rising step, once `close`.
    """

    draws = False
    """Whether there is room for pictures."""

    def resume(self, kept: list[Line]) -> None:
        """The run begins, or goes on after the lines `kept`: all others are made again."""

    def write(self, line: Line) -> None:
        """Takes a line."""

    def show(self, step: int, pictures: dict[str, Picture]) -> None:
        """Takes pictures by name, if it draws."""

    def close(self) -> None:
        """Writes what still waits."""


class Jsonl(Sink):
    """A JSON object a line: what a run reads when it goes on, and pages are made of."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"

    def resume(self, kept: list[Line]) -> None:
        _put(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: Line) -> None:
        _put(self.path, json.dumps(line, allow_nan=False) + "\n", "a")


class Csv(Sink):
    """For a spreadsheet: a row for each step, a column for each number ("val/mean_iou").

    The file is appended to; where a column is new, or a step gets its scores, it is written anew.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}
        self.columns: dict[str, None] = {}

    def resume(self, kept: list[Line]) -> None:
        self.rows, self.columns = {}, {}
        for line in kept:
            self._take(line)
        self._rewrite()

    def write(self, line: Line) -> None:
        fresh = line["step"] not in self.rows
        if self._take(line) or not fresh:
            self._rewrite()
        else:
            _put(self.path, self._text([line["step"]]), "a")

    def _take(self, line: Line) -> bool:
        """Keeps the numbers of a line; says whether there is a new column."""
        numbers, before = flatten(line), len(self.columns)
        self.columns |= dict.fromkeys(numbers)
        self.rows[line["step"]] = self.rows.get(line["step"], {}) | numbers
        return len(self.columns) > before

    def _rewrite(self) -> None:
        _put(self.path, ",".join(self.columns) + "\n" * bool(self.columns) + self._text(self.rows))

    def _text(self, steps: Any) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, list(self.columns), lineterminator="\n")
        writer.writerows(self.rows[step] | {"step": step} for step in steps)
        return file.getvalue()


class TensorBoard(Sink):
    """Events below tensorboard/ in the run folder (extra `log`)."""

    draws = True

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise _missing("--tensorboard", "tensorboardX") from None
        self.folder, self.kind = str(folder / "tensorboard"), SummaryWriter
        self.after = 1
        self.made: Any = None

    @property
    def writer(self) -> Any:
        """Made when there is something to write: a run that had ended leaves no empty file."""
        if self.made is None:
            # Without a suffix a file of the same second would be written over.
            suffix = f".{self.after}"
            self.made = self.kind(self.folder, purge_step=self.after, filename_suffix=suffix)
        return self.made

    def resume(self, kept: list[Line]) -> None:
        # TensorBoard leaves out what older files have of this step and later ones.
        self.after = 1 + max((line["step"] for line in kept), default=0)

    def write(self, line: Line) -> None:
        for name, value in flatten(line).items():
            self.writer.add_scalar(name, value, line["step"])
        self.writer.flush()

    def show(self, step: int, pictures: dict[str, Picture]) -> None:
        for name, picture in pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        if self.made is not None:  # flushing leaves events that wait
            self.made.close()


class WandB(Sink):
    """Weights & Biases (extra `wandb`); with WANDB_MODE=offline all stays below wandb/ in the run
    folder.

    A run that goes on has the same id: W&B gets what it has not yet. What is offline is made anew
    from metrics.jsonl, without the earlier pictures: a process that is killed takes some lines with
    it. WANDB_PROJECT and the other variables of W&B count.

    Args:
      config: the resolved experiment.
    """

    draws = True

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing("--wandb", "wandb") from None
        self.api, self.folder, self.config = wandb, folder, config
        self.kept: list[Line] = []
        self.run: Any = None
        self.first = 0

    def resume(self, kept: list[Line]) -> None:
        self.kept = kept

    def write(self, line: Line) -> None:
        self._log(line["step"], flatten(line))

    def show(self, step: int, pictures: dict[str, Picture]) -> None:
        self._log(step, {name: self.api.Image(picture) for name, picture in pictures.items()})

    def _log(self, step: int, things: dict[str, Any]) -> None:
        if self.run is None:
            self.run = self._begun()
            self.first = self.run.step  # the first that W&B lacks; offline 0
            for line in self.kept:
                self._log(line["step"], flatten(line))
        if step >= self.first:
            self.run.log({name: value for name, value in things.items() if name != "step"}, step)

    def _begun(self) -> Any:
        name = self._id()
        settings = self.api.Settings(console="off", silent=True)
        try:
            run = self.api.init(
                project=os.environ.get("WANDB_PROJECT", "encdec"),
                name=os.environ.get("WANDB_NAME", self.folder.resolve().name),
                id=name,
                resume="allow",
                dir=str(self.folder),
                config=self.config,
                settings=settings,
            )
        except self.api.errors.Error as error:
            raise InputError(
                f"--wandb: {error}; `wandb login` first, or set WANDB_MODE=offline"
            ) from error
        print(f"W&B: {run.dir if run.offline else run.url}", flush=True)
        return run

    def _id(self) -> str:
        """The run's own, the same when it goes on; offline parts of it are removed."""
        folder = self.folder / "wandb"
        if folder.is_symlink():
            raise InputError(f"{folder} leads elsewhere: remove it, since what is in it changes")
        folder.mkdir(exist_ok=True)
        path = folder / "id.txt"
        known = path.read_text("utf-8", "replace").strip() if path.is_file() else ""
        if not re.fullmatch("[0-9a-f]{16}", known):
            known = secrets.token_hex(8)
            _put(path, f"{known}\n")
        for part in folder.glob(f"offline-run-*-{known}"):
            if not part.is_symlink():
                shutil.rmtree(part)
        return known

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()


def flatten(line: Line, prefix: str = "") -> dict[str, float]:
    """{"val": {"mean_iou": 1}} -> {"val/mean_iou": 1}; numbers only."""
    flat = {}
    for name, value in line.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


def _put(path: Path, text: str, mode: str = "w") -> None:
    try:
        if mode == "w":
            write_whole(path, text)
        else:
            with path.open(mode) as file:
                file.write(text)
    except OSError as error:
        raise InputError(
            f"{path} could not be written: {error.strerror}; make room, or mend the disk: "
            "the same command goes on from the newest checkpoint"
        ) from error


def _missing(flag: str, package: str) -> InputError:
    extra = "log" if package == "tensorboardX" else "wandb"
    return InputError(
        f'{flag} wants the package {package}, which is not there: pip install -e ".[{extra}]"'
    )
