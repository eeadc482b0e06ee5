"""Two thousand steps of a small run, scored and saved on the way: what grows, what is left behind.

python -m tests.soak --steps 2000
"""

import gc
import json
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tyro

from encdec.report import Report
from encdec.train.loop import run
from tests.stormed import experiment


@dataclass(frozen=True)
class Soak:
    """One run.

    Attributes:
      steps: of the run; memory is compared between its fifth and its last tenth: what compiling
        took is given back only little by little.
      kind: see `tests.stormed`.
    """

    steps: int = 2000
    kind: str = "plain"


def soak(job: Soak, folder: Path) -> dict[str, float]:
    """Trains; returns growth of the process's memory, and the threads, processes and shared memory
    that are there afterwards and were not before."""
    before, held = left(), []
    train = Report.train

    def measured(self: Report, step: int, losses: dict[str, float], rate: float) -> None:
        held.append(resident())
        train(self, step, losses, rate)

    Report.train = measured
    began = time.time()
    try:
        run(replace(experiment(job.kind), steps=job.steps), folder)
    finally:
        Report.train = train
    gc.collect()
    tenth = len(held) // 10
    early, late = median(held[4 * tenth : 5 * tenth]), median(held[-tenth:])
    return {
        "steps": len(held),
        "growth": round(late / early - 1, 4),
        "mib": round(late / 2**20),
        "left": sorted(left() - before),
        "seconds": round(time.time() - began),
    }


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def left() -> set[str]:
    """Names of Python's threads, child processes and pieces of shared memory."""
    children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return (
        {f"thread {thread.name}" for thread in threading.enumerate()}
        | {f"process {child}" for some in children for child in some}
        | {f"shared memory {path.name}" for path in Path("/dev/shm").glob("*")}
    )


if __name__ == "__main__":
    asked = tyro.cli(Soak)
    with TemporaryDirectory() as place:
        os.environ["ENCDEC_CACHE"] = place  # so that the set is drawn here, too
        print(json.dumps(soak(asked, Path(place) / "run")))
