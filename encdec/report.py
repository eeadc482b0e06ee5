"""Numbers -> one line on the console, and the same line to every sink."""

import json
import math
import time
from pathlib import Path
from typing import Any

from encdec import hosts
from encdec.sinks import Csv, Jsonl, Line, Sink, TensorBoard, WandB
from encdec.visualize import Picture

WAITING = 0.03
"""Share of the time that is said on the console when it goes by waiting for data."""

SHOWN = (
    *("pixel_accuracy", "mean_iou", "boundary_f", "v_rand", "v_info", "object_f1", "auc"),
    *("ap", "ap50", "ap75", "ar100", "ar1000"),
)
"""Scores that are said on the console and stand in tables."""


class Report:
    """Progress of one run, for the console, metrics.jsonl, metrics.csv, TensorBoard and W&B.

    A run that goes on says what it says after what was said. Of several hosts only the first says
    and writes anything.

    Args:
      tensorboard: write its events.
      wandb: the resolved experiment, to write to W&B; None: do not.

    Attributes:
      waited: seconds since the last line in which the devices had nothing to do but wait for data.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        batch: int,
        tensorboard: bool = False,
        wandb: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.steps, self.batch = folder, steps, batch
        self.silent, self.sinks = not hosts.is_first(), list[Sink]()
        if not self.silent:
            self.sinks = [Jsonl(folder), Csv(folder)]
            self.sinks += [TensorBoard(folder)] if tensorboard else []
            self.sinks += [WandB(folder, wandb)] if wandb is not None else []
        self.since: tuple[int, float] | None = None
        self.waited = 0.0

    def resume(self, step: int) -> None:
        """Drops lines of steps after the checkpoint: they are about to be made again."""
        if self.silent:
            return
        kept = [line for line in history(self.folder) if line["step"] <= step]
        for sink in self.sinks:
            sink.resume(kept)

    def has(self, step: int, split: str) -> bool:
        """Whether the scores of a split after that step are among the first host's lines."""
        lines = history(self.folder)
        return hosts.exchange(any(line["step"] == step and split in line for line in lines))[0]

    def train(self, step: int, losses: dict[str, float], rate: float) -> None:
        """One line of training; the speed counts from the line before, so without compiling.

        "waiting" is the share of the time that was `waited`.
        """
        now = time.perf_counter()
        line: dict[str, Any] = {"step": step, **losses, "rate": rate}
        said = f"step {step:>{len(str(self.steps))}}/{self.steps}  loss {losses['loss']:.4f}"
        if skipped := losses.get("skipped"):
            said += f"  {skipped} steps skipped: not finite"
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
        said = "  ".join(f"{name} {scores[name]:.4f}" for name in SHOWN if name in scores)
        self._write({"step": step, split: scores}, f"step {step}  {split}: {said}")
        if self.since is not None:
            self.since = (self.since[0], self.since[1] + seconds)

    @property
    def draws(self) -> bool:
        """Whether a sink here has room for pictures."""
        return any(sink.draws for sink in self.sinks)

    def pictures(self, step: int, pictures: dict[str, Picture], seconds: float) -> None:
        """Pictures by name; that they were made and are written is not training time."""
        began = time.perf_counter()
        for sink in self.sinks:
            sink.show(step, pictures)
        if self.since is not None:
            seconds += time.perf_counter() - began
            self.since = (self.since[0], self.since[1] + seconds)

    def close(self) -> None:
        """Writes what still waits."""
        for sink in self.sinks:
            sink.close()

    def _write(self, line: Line, said: str) -> None:
        if self.silent:
            return
        print(said, flush=True)
        line = finite(line)
        for sink in self.sinks:
            sink.write(line)


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
    """The lines of a run's metrics.jsonl, up to one that a crash cut short, or that is no line."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines
