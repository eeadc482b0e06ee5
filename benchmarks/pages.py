"""A training step with memory in pages of 4 KiB, and with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in
huge ones, which Linux may grant; each in a fresh process. Every step asks for its memory anew."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

from benchmarks.timing import wait_until_quiet

CONTENDERS = {"4 KiB": "", "2 MiB": "glibc.malloc.hugetlb=1"}
SIDE, BATCH, STEPS = 128, 8, 10


def rows(*, rounds: int, names: tuple[str, ...]) -> list[dict[str, object]]:
    """One row for each decoder and contender, medians of the rounds."""
    from benchmarks.scale import DECODERS

    table = []
    for name in names or DECODERS:
        seen = [{by: child(name, by) for by in CONTENDERS} for _ in range(rounds)]
        for by in CONTENDERS:
            middle = {key: statistics.median(one[by][key] for one in seen) for key in seen[0][by]}
            row = {"a step of": name, "pages of": by} | middle
            for key, ratio in (("ms", "ratio"), ("processor ms", "processor time")):
                row[ratio] = statistics.median(one[by][key] / one["4 KiB"][key] for one in seen)
            table.append(row)
    return table


def child(name: str, contender: str) -> dict[str, float]:
    """What a step takes in a new process, compiled before."""
    wait_until_quiet()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pages", name],
        env=os.environ | {"GLIBC_TUNABLES": CONTENDERS[contender]},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str) -> dict[str, float]:
    from benchmarks.scale import Step, network

    step = Step(network(name), SIDE, BATCH)
    for _ in range(2):
        step()
    before = used()
    for _ in range(STEPS):
        step()
    pairs = zip(before, used(), strict=True)
    wall, processor, faults = ((last - first) / STEPS for first, last in pairs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "ms": 1e3 * wall,
        "processor ms": 1e3 * processor,
        "page faults": faults,
        "peak MiB": peak,
    }


def used() -> tuple[float, float, int]:
    """Seconds, processor seconds and page faults of this process so far."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), found.ru_utime + found.ru_stime, found.ru_minflt


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
