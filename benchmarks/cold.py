"""From a model's definition to the end of its first training step, each in a fresh process."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from unittest.mock import patch

from benchmarks.timing import wait_until_quiet

NETWORK = "U-Net 32"
CONTENDERS = ("torch.compile", "encdec", "linen's layers")
"""The last starts from `jax.random.key`."""


def rows(*, rounds: int) -> list[dict[str, object]]:
    """One row for each contender: seconds with an empty and with a filled compilation cache."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for contender in CONTENDERS:
            with tempfile.TemporaryDirectory() as cache:
                for start in ("cold", "warm"):
                    wait_until_quiet()
                    found = seconds.setdefault(contender, {"cold": [], "warm": []})
                    found[start].append(child(contender, cache))
    first = seconds["torch.compile"]
    return [
        {
            "first step by": contender,
            **{f"{start} s": statistics.median(found[start]) for start in found},
            **{
                f"{start} ratio": statistics.median(found[start]) / statistics.median(first[start])
                for start in found
            },
        }
        for contender, found in seconds.items()
    ]


def child(contender: str, cache: str) -> float:
    """Seconds that a new process takes after its imports."""
    caches = {"JAX_COMPILATION_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    caches["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", contender],
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def first_step(contender: str) -> float:
    import numpy as np

    from benchmarks.networks import NETWORKS
    from benchmarks.steps import jax_step, linen_layers, torch_step

    pair = NETWORKS[NETWORK]
    images = np.zeros((4, 128, 128, 3), np.float32)
    labels = np.zeros((4, 128, 128), np.int32)
    began = time.perf_counter()
    if contender == "encdec":
        jax_step(pair.ours, images, labels)()
    elif contender == "linen's layers":
        import jax

        with linen_layers(), patch("benchmarks.steps.initial_key", jax.random.key):
            jax_step(pair.ours, images, labels)()
    else:
        import torch

        torch_step(torch.compile(pair.theirs()), images, labels)()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(first_step(sys.argv[1]))
