"""Paired timing: A B A B …, in rounds in which nobody else computes."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

BUSY = 0.10
"""Share of the processors that others may use in a round that counts."""


@dataclass(frozen=True)
class Timing:
    """Of one contender.

    Attributes:
      median_ms, fastest_ms: wall time of a call.
      cpu_ms: median processor time of a call, all threads.
      ratio, cpu_ratio: to the first contender, round by round; the median of these.
      quiet, rounds: rounds that counted, of how many; all count where under three are quiet.
    """

    median_ms: float
    fastest_ms: float
    cpu_ms: float
    ratio: float
    cpu_ratio: float
    quiet: int
    rounds: int


def paired(
    contenders: dict[str, Callable[[], object]], *, rounds: int, at_least_s: float = 0.05
) -> dict[str, Timing]:
    """Times calls that block until they are done; the first contender is the measure.

    Args:
      rounds: each contender is called once or more in each, in turn.
      at_least_s: short calls are repeated within a round for that long.
    """
    repeats = {}
    for name, call in contenders.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, round(at_least_s / (time.perf_counter() - began)))
    seen = [one_round(contenders, repeats) for _ in range(rounds)]
    quiet = [one for one in seen if max(others for _, _, others in one.values()) < BUSY]
    counted = quiet if len(quiet) >= 3 else seen
    first = next(iter(contenders))

    def timing(name: str) -> Timing:
        wall, cpu = ([one[name][i] for one in counted] for i in (0, 1))
        ratios = ([one[name][i] / one[first][i] for one in counted] for i in (0, 1))
        ratio, cpu_ratio = map(statistics.median, ratios)
        middle, middle_cpu = 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu)
        return Timing(middle, 1e3 * min(wall), middle_cpu, ratio, cpu_ratio, len(quiet), rounds)

    return {name: timing(name) for name in contenders}


def one_round(
    contenders: dict[str, Callable[[], object]], repeats: dict[str, int]
) -> dict[str, tuple[float, float, float]]:
    """(seconds a call, processor seconds a call, share of the processors that others used)."""
    wait_until_quiet()
    round_ = {}
    for name, call in contenders.items():
        busy, cpu, wall = busy_seconds(), time.process_time(), time.perf_counter()
        for _ in range(repeats[name]):
            call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        others = max(0.0, busy_seconds() - busy - cpu) / (wall * os.cpu_count())
        round_[name] = (wall / repeats[name], max(cpu, 1e-9) / repeats[name], others)
    return round_


def wait_until_quiet(limit_s: float = 6.0) -> None:
    """Returns when others leave the processors alone, or after the limit."""
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end:
        busy, cpu, began = busy_seconds(), time.process_time(), time.perf_counter()
        time.sleep(0.15)
        others = busy_seconds() - busy - (time.process_time() - cpu)
        if others < 2 * BUSY * (time.perf_counter() - began):
            return


def busy_seconds() -> float:
    """Processor seconds of the whole machine so far; 0 where the system does not tell."""
    try:
        with open("/proc/stat") as stat:
            spent = [int(ticks) for ticks in stat.readline().split()[1:9]]
    except OSError:
        return 0.0
    return (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
