"""Resident memory that three training steps add at their peak, each contender in a fresh process.

Weights, momentum and the compiled program are there before and do not count. Memory that was freed
is given back to the system before the reading, and the peak is reset where that is permitted
(VmHWM); else it is the process's peak (ru_maxrss), which compiling may have set. Linux only.
"""

import ctypes
import gc
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

NETWORK, SIZE, BATCH, STEPS = "U-Net 32", 256, 4, 3
CONTENDERS = ("PyTorch", "encdec", "linen's layers")
MIB = 2**20


def rows(*, rounds: int) -> list[dict[str, object]]:
    """One row for each contender, the median of the rounds."""
    found = {name: [child(name) for _ in range(rounds)] for name in CONTENDERS}
    added = {name: statistics.median(one["added"] for one in found[name]) for name in found}
    return [
        {
            f"three steps of {NETWORK} by": name,
            "added MiB": added[name] / MIB,
            "ratio": added[name] / added[CONTENDERS[0]],
            "XLA's temporaries, MiB": ones[0]["temporaries"] and ones[0]["temporaries"] / MIB,
            "peak from": ones[0]["peak from"],
        }
        for name, ones in found.items()
    ]


def child(contender: str) -> dict:
    """What a new process measures; memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", contender],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(contender: str) -> dict[str, object]:
    import numpy as np

    from benchmarks.networks import NETWORKS
    from benchmarks.steps import compiled_step, linen_layers, stepper, torch_step

    pair = NETWORKS[NETWORK]
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, SIZE, SIZE, 3), np.float32)
    labels = rng.integers(0, pair.classes, images.shape[:3]).astype(np.int32)
    if contender == "PyTorch":
        net = pair.theirs()
        peak, source = added(torch_step(net, images, labels))
        # It makes its momentum in the first step, JAX before it.
        momentum = sum(4 * p.numel() for p in net.parameters())
        return {"added": peak - momentum, "temporaries": None, "peak from": source}
    if contender == "encdec":
        compiled, *arguments = compiled_step(pair.ours, images, labels)
    else:
        with linen_layers():
            compiled, *arguments = compiled_step(pair.ours, images, labels)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    peak, source = added(stepper(compiled, *arguments))
    return {"added": peak, "temporaries": temporaries, "peak from": source}


def added(step: Callable[[], object]) -> tuple[int, str]:
    """Bytes that the steps add at their peak, and whose peak that is."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    source = "VmHWM" if peak_was_reset() else "ru_maxrss"
    before = resident("VmRSS")
    for _ in range(STEPS):
        step()
    if source == "VmHWM":
        return resident("VmHWM") - before, source
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, source


def peak_was_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return resident("VmHWM") < resident("VmRSS") + MIB


def resident(which: str) -> int:
    """Bytes: VmRSS now, VmHWM at the peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", status).group(1))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
