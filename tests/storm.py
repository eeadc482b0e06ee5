"""A run that is killed again and again, beside the same run left alone: python -m tests.storm.

Kills come at random moments: in compiling, in steps, in saves, in evaluation. Every line of losses
and scores must be the unbroken run's to the last bit, and so must the final state; no checkpoint
may be unreadable, and nobody may be needed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from tests.stormed import SAVE_EVERY

ROOT = Path(__file__).parent.parent
TIMED = {"images_per_s", "memory_mib", "waiting"}


@dataclass(frozen=True)
class Storm:
    """Kills of one run.

    Attributes:
      kills: how many.
      kind: "plain"; "all", with accumulation, averages, bfloat16 and dropout; "detect".
      steps: of the run.
      start: seconds in which a third of the kills come, while it starts and compiles; the others
        come at a random one of the steps that are left.
      seed: of the moments.
    """

    kills: int = 20
    kind: str = "plain"
    steps: int = 400
    start: float = 8.0
    seed: int = 0


def storm(job: Storm, folder: Path) -> dict[str, float]:
    """Runs both; returns what was counted.

    Raises:
      AssertionError: a promise was broken.
    """
    moments, repeated, run = random.Random(job.seed), 0, folder / "killed"
    alone = _started(job, folder, "alone")
    assert alone.wait() == 0, _said(folder, "alone")
    for kill in range(job.kills):
        process = _started(job, folder, "killed")
        if moments.random() < 1 / 3:
            time.sleep(moments.uniform(0, job.start))
        else:
            left = job.steps - _last(run)
            until = _last(run) + moments.uniform(0, left / (job.kills - kill + 1))
            while process.poll() is None and _last(run) < until:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before its kill: give it more --steps"
        repeated = max(repeated, _last(run) - _saved(run))
    process = _started(job, folder, "killed")
    assert process.wait() == 0, _said(folder, "killed")
    said = _said(folder, "killed")
    assert "cannot be read" not in said, said
    assert repeated <= 2 * SAVE_EVERY, f"{repeated} steps were lost at once"
    assert _lines(folder / "killed") == _lines(folder / "alone")
    assert _digest(folder / "killed") == _digest(folder / "alone")
    return {
        "kills": job.kills,
        "lines": len(_lines(folder / "alone")),
        "most steps repeated": repeated,
    }


def _started(job: Storm, folder: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.stormed", job.kind]
    command += ["--steps", str(job.steps), "--workdir", str(folder / name)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "ENCDEC_CACHE": str(folder / "cache")}
    with (folder / f"{name}.txt").open("a") as said:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said
        )


def _said(folder: Path, name: str) -> str:
    return (folder / f"{name}.txt").read_text()


def _lines(run: Path) -> list[dict]:
    """metrics.jsonl but for what a clock said."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if name not in TIMED} for line in lines]


def _last(run: Path) -> int:
    path, steps = run / "metrics.jsonl", [0]
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            steps.append(json.loads(line)["step"])
        except json.JSONDecodeError:  # cut by the kill
            break
    return steps[-1]


def _saved(run: Path) -> int:
    names = [path.name for path in (run / "checkpoints").glob("*")] if run.exists() else []
    return max([int(name) for name in names if name.isdigit()], default=0)


def _digest(run: Path) -> dict[str, str]:
    """Of every array of the final state, as the checkpoint holds them."""
    newest = run / "checkpoints" / str(_saved(run)) / "digests"
    found = [
        path for path in newest.rglob("*") if path.is_file() and b"params/" in path.read_bytes()
    ]
    return json.loads(found[0].read_text())


if __name__ == "__main__":
    asked = tyro.cli(Storm)
    with TemporaryDirectory() as place:
        began = time.time()
        counted = storm(asked, Path(place))
        print(json.dumps({"kind": asked.kind, **counted, "seconds": round(time.time() - began)}))
