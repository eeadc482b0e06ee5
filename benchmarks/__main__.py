"""python -m benchmarks steps|ops|cold: ratios to PyTorch (channels_last), measured side by side."""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from encdec import cli
from encdec.table import table
from encdec.train.folder import environment


@dataclass(frozen=True)
class Steps:
    """Whole networks.

    Attributes:
      size: rows and columns of the images.
      names: of the networks; none for all.
      out: file for the records.
    """

    size: int = 128
    batch: int = 4
    rounds: int = 7
    names: tuple[str, ...] = ()
    out: Path | None = None


@dataclass(frozen=True)
class Ops:
    """Single layers against linen's.

    Attributes:
      out: file for the records.
    """

    rounds: int = 15
    out: Path | None = None


@dataclass(frozen=True)
class Cold:
    """From a model's definition to the end of its first step.

    Attributes:
      out: file for the records.
    """

    rounds: int = 3
    out: Path | None = None


def main() -> None:
    args = sys.argv[1:]
    kinds = {"steps": Steps, "ops": Ops, "cold": Cold}
    if not args or args[0] not in kinds:
        raise cli.InputError(f"wanted one of {', '.join(kinds)}; got {' '.join(args) or 'nothing'}")
    asked = cli.parse(kinds[args[0]], args[1:])
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
