"""Examples that cannot be used: training stops at the first, or skips them, up to a limit."""

import functools
import sys
import threading
from pathlib import Path

from encdec.data.datasets import Dataset
from encdec.errors import InputError


class Faults:
    """The examples and files of a data set that cannot be used, as they are met.

    Attributes:
      lines: one for each that was skipped, in the order in which they were met.
    """

    def __init__(self, dataset: Dataset, file: Path | None = None) -> None:
        """`file` lists them, a line each; those that it has already, of a run before, count too."""
        self.skipping, self.most, self.file = dataset.faults == "skip", dataset.max_faults, file
        self.lock = threading.Lock()  # examples are read by many threads
        self.lines: dict[str, None] = {}
        if self.skipping and file is not None and file.is_file():
            self.lines = dict.fromkeys(file.read_text("utf-8", "replace").splitlines())

    def note(self, error: InputError) -> None:
        """Counts and lists an example that cannot be used, for a reason; once, if it comes again.

        Raises:
          InputError: the reason itself, where the data set says "stop"; or there are too many.
        """
        if not self.skipping:
            raise error
        line = str(error)
        with self.lock:
            if line not in self.lines:
                self.lines[line] = None
                say(f"skipped: {line}")
                self._list(line)
            if len(self.lines) > self.most:
                where = f" those in {self.file} and" if self.file else ""
                undo = f", delete {self.file}, and go on" if self.file else ""
                raise InputError(
                    f"at most {self.most} examples that cannot be used are wanted; there are"
                    f"{where} {line}: `encdec check` names all; mend them{undo}, or say "
                    "--data.max-faults"
                ) from error

    def facts(self) -> dict[str, str]:
        """What a run's page says of them."""
        return {"skipped examples": "\n".join(["", *self.lines])} if self.lines else {}

    def _list(self, line: str) -> None:
        if self.file is None:
            return
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise InputError(
                f"{self.file} could not be written: {error.strerror}; make room, or mend the disk"
            ) from error


def listed_in(host: int) -> str:
    """The file's name in a run's folder: each host meets other examples."""
    return f"faults-{host}.txt" if host else "faults.txt"


@functools.cache
def say(line: str) -> None:
    """Says a line on stderr, once."""
    print(line, file=sys.stderr, flush=True)
