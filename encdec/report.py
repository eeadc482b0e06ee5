"""Numbers -> one line on the console and one JSON line in the run folder."""

import json
import math
import time
from pathlib import Path
from typing import Any

import jax

from encdec.errors import InputError

WAITING = 0.03
"""Share of the time that is said on the console when it goes by waiting for data."""


class Report:
    """Progress of one run. `metrics.jsonl` holds what was said, a resumed run's after it.

    Of several hosts only the first says and writes anything.

    Attributes:
      waited: seconds since the last line in which the devices had nothing to do but wait for data.
    """

    def __init__(self, folder: Path, *, steps: int, batch: int, tensorboard: bool) -> None:
        self.path, self.steps, self.batch = folder / "metrics.jsonl", steps, batch
        self.silent = jax.process_index() > 0
        self.writer = _tensorboard(folder) if tensorboard and not self.silent else None
        self.since: tuple[int, float] | None = None
        self.waited = 0.0

    def resume(self, step: int) -> None:
        """Drops lines of steps after the checkpoint: they are about to be made again."""
        if self.silent:
            return
        kept = [line for line in history(self.path.parent) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def train(self, step: int, losses: dict[str, float], rate: float) -> None:
        """One line of training; the speed counts from the line before, so without compiling.

        "waiting" is the share of the time that was `waited`.
        """
        now = time.perf_counter()
        line: dict[str, Any] = {"step": step, **losses, "rate": rate}
        said = f"step {step:>{len(str(self.steps))}}/{self.steps}  loss {losses['loss']:.4f}"
        if self.since is not None and step > self.since[0]:
            seconds = (now - self.since[1]) / (step - self.since[0])
            line["images_per_s"] = round(self.batch / seconds, 3)
            line["waiting"] = round(self.waited / (now - self.since[1]), 4)
            left = round(seconds * (self.steps - step))
            said += f"  {line['images_per_s']:.1f} images/s  {left // 60}:{left % 60:02d} left"
            if line["waiting"] > WAITING:
                said += f"  waits for data {line['waiting']:.0%} of the time"
        self.since, self.waited = (step, now), 0.0
        self._write(line, said)

    def scores(self, step: int, split: str, scores: dict[str, float], seconds: float) -> None:
        """One line of evaluation, which does not count as training time."""
        shown = ("pixel_accuracy", "mean_iou", "boundary_f", "v_rand", "v_info", "object_f1", "auc")
        said = "  ".join(f"{name} {scores[name]:.4f}" for name in shown if name in scores)
        self._write({"step": step, split: scores}, f"step {step}  {split}: {said}")
        if self.since is not None:
            self.since = (self.since[0], self.since[1] + seconds)

    def close(self) -> None:
        """Writes the events that still wait: flushing does not."""
        if self.writer:
            self.writer.close()

    def _write(self, line: dict[str, Any], said: str) -> None:
        if self.silent:
            return
        print(said, flush=True)
        line = finite(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self.writer:
            for name, value in flatten(line).items():
                self.writer.add_scalar(name, value, line["step"])
            self.writer.flush()


def flatten(line: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """{"val": {"mean_iou": 1}} -> {"val/mean_iou": 1}; numbers only."""
    flat = {}
    for name, value in line.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


def finite(line: dict[str, Any]) -> dict[str, Any]:
    """The line with None, in JSON null, for NaN and infinities, which JSON does not know."""
    kept: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            kept[name] = finite(value)
        else:
            unknown = isinstance(value, float) and not math.isfinite(value)
            kept[name] = None if unknown else value
    return kept


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a line that a crash cut short is left out."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _tensorboard(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard wants the package tensorboardX, which is not there: "
            'pip install -e ".[log]"'
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))
