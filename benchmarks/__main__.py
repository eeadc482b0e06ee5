"""python -m benchmarks steps|ops|cold: ratios to PyTorch (channels_last), measured side by side."""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from encdec import cli
from encdec.errors import InputError
from encdec.table import table
from encdec.train.folder import environment


@dataclass(frozen=True)
class Benchmark:
    """Attributes:
    out: file for the records.
    """

    rounds: int
    out: Path | None = None


@dataclass(frozen=True)
class Steps(Benchmark):
    """Whole networks.

    Attributes:
      size: rows and columns of the images.
      names: of the networks; none for all.
    """

    size: int = 128
    batch: int = 4
    names: tuple[str, ...] = ()


KINDS = {"steps": Steps(rounds=7), "ops": Benchmark(rounds=15), "cold": Benchmark(rounds=3)}


def main() -> None:
    args = sys.argv[1:]
    if not args or args[0] not in KINDS:
        raise InputError(f"wanted one of {', '.join(KINDS)}; got {' '.join(args) or 'nothing'}")
    asked = cli.parse(type(KINDS[args[0]]), args[1:], default=KINDS[args[0]])
    fields = {name: value for name, value in vars(asked).items() if name != "out"}
    rows = importlib.import_module(f"benchmarks.{args[0]}").rows(**fields)
    print(table(rows))
    if asked.out:
        record = {"rows": rows, "machine": environment()}
        asked.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    # Threads that spin after their work would take the processors from the other contender.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cli.guarded(main)
