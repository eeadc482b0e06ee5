"""python -m benchmarks steps|ops|cold|memory|pages|data|cells|tiles|scale: ratios, side by side.

To PyTorch (channels_last); of layers to linen's, of augmentation to cv2.remap, of tiles to MONAI's.
`python -m benchmarks report` writes docs/performance.md from the records in docs/records, which
`--out docs/records/steps.json` and the like have left there.
"""

import ast
import importlib
import json
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from encdec import cli, flags
from encdec.errors import InputError
from encdec.table import table
from encdec.train.folder import environment


@dataclass(frozen=True)
class Benchmark:
    """Attributes:
    rounds: in each of which every contender runs once.
    out: file for the records.
    """

    rounds: int
    out: Path | None = None


@dataclass(frozen=True)
class Networks(Benchmark):
    """Attributes:
    names: of the networks, as the table has them; none for all.
    """

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Steps(Networks):
    """Whole networks.

    Attributes:
      size: rows and columns of the images.
      precision: of both sides; tf32 is float32 with products of 10 bits (GPU), bfloat16 is
        torch.autocast and our `dtype`.
      compiled: PyTorch's by torch.compile.
    """

    size: int = 128
    batch: int = 4
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    compiled: bool = False


KINDS = {
    "steps": Steps(rounds=7),
    "ops": Benchmark(rounds=15),
    "cold": Benchmark(rounds=3),
    "memory": Benchmark(rounds=3),
    "pages": Networks(rounds=5),
    "data": Benchmark(rounds=15),
    "cells": Benchmark(rounds=5),
    "tiles": Benchmark(rounds=5),
    "scale": Networks(rounds=3),
}
PEERS = ("torch", "torchvision", "segmentation-models-pytorch", "monai", "opencv-python-headless")
DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    args = sys.argv[1:]
    if args == ["report"]:
        return report()
    if args in (["--help"], ["-h"]):
        return print(__doc__.strip())
    if not args or args[0] not in KINDS:
        raise InputError(
            f"wanted one of {', '.join(KINDS)}, report; got {' '.join(args) or 'nothing'}"
        )
    asked = flags.parse(type(KINDS[args[0]]), args[1:], default=KINDS[args[0]])
    fields = {name: value for name, value in vars(asked).items() if name != "out"}
    rows = importlib.import_module(f"benchmarks.{args[0]}").rows(**fields)
    print(table(rows))
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"rows": rows, "machine": machine()}, indent=1) + "\n")


def machine() -> dict[str, str]:
    """What the figures were measured on, and with."""
    found = environment() | {"command": " ".join(["python -m benchmarks", *sys.argv[1:]])}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found | {"processors": str(os.cpu_count()), "XLA_FLAGS": os.environ["XLA_FLAGS"]}


def report() -> None:
    """docs/performance.md, from what lies in docs/records."""
    parts = [
        "# Performance\n\nWritten by `python -m benchmarks report` from the records beside it. "
        "A ratio is the median over rounds in which every contender ran in turn, to the first "
        "contender: below 1 is faster, or less."
    ]
    for kind in KINDS:
        path = DOCS / "records" / f"{kind}.json"
        if path.exists():
            record = json.loads(path.read_text())
            source = Path(__file__).with_name(f"{kind}.py").read_text()
            about = ast.get_docstring(ast.parse(source))  # the peers need not be installed
            facts = "; ".join(f"{name} {value}" for name, value in record["machine"].items())
            parts += [f"## {kind}\n\n{about.strip()}", table(record["rows"]), facts]
    (DOCS / "performance.md").write_text("\n\n".join(parts) + "\n")
    print(DOCS / "performance.md")


if __name__ == "__main__":
    # Threads that spin after their work would take the processors from the other contender.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cli.guarded(main)
