"""A run's folder: which experiment it holds, and what it ran on."""

import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from encdec import hosts
from encdec.errors import InputError
from encdec.experiment import Experiment, differences, from_json, to_json

CHANGEABLE = ("--data.faults", "--data.max-faults", "--tta")
"""Flags that may be others when a run goes on: it may have stopped at a file that it now skips;
turns change its scores alone."""

PATIENCE = 20.0
"""Seconds until a file that one host wrote must be seen by the others: network file systems keep
what they knew of a folder for a while."""


class InUse(InputError):
    """Another process has the folder."""


@contextmanager
def owned(experiment: Experiment, folder: Path) -> Iterator[None]:
    """The run folder, kept from other processes, and opened for this very experiment.

    Raises:
      InUse: another process holds it.
      InputError: it cannot be written, holds another run, or is not all hosts' own.
    """
    with locked(folder):
        with hosts.together():
            if hosts.is_first():
                open_folder(experiment, folder)
        check_shared(folder)
        yield


KERNEL = "ipykernel_launcher.py"
"""The script that a notebook's process runs, which says nothing of the run."""


def open_folder(experiment: Experiment, folder: Path) -> None:
    """Makes the run folder, or checks that it holds this very experiment.

    Writes experiment.json, environment.json and a copy of the script.

    Raises:
      InputError: it holds another one, or cannot be written.
    """
    path, mine = folder / "experiment.json", json.loads(json.dumps(to_json(experiment)))
    found = differences(_read(path), mine) if path.exists() else []
    if flags := [flag for flag in found if flag not in CHANGEABLE]:
        raise InputError(
            f"{folder} holds a run with other values of {', '.join(flags)}: give the same to go on "
            "with it, or another --workdir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(mine, indent=1) + "\n")
        found = environment() | {"started": datetime.now(UTC).isoformat()}
        write_whole(folder / "environment.json", json.dumps(found, indent=1) + "\n")
        script = Path(sys.argv[0])
        if script.suffix == ".py" and script.is_file() and script.name != KERNEL:
            shutil.copy(script, folder / script.name)
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a file, given as its text or in pieces, whole or not at all, however the process
    ends."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError, flag: str = "--workdir") -> InputError:
    return InputError(
        f"wanted a folder that can be written; {folder}: {error.strerror}; give another {flag}"
    )


def check_same(experiment: Experiment, examples: dict[str, int]) -> None:
    """Raises InputError unless all hosts have one experiment, and as many examples of each split.

    The data may lie elsewhere on each.
    """
    mine = json.loads(json.dumps({"experiment": to_json(experiment), "examples": examples}))
    mine["experiment"]["data"].pop("root", None)
    first = json.loads(hosts.exchange(json.dumps(mine))[0])
    with hosts.together():
        if flags := differences(first["experiment"], mine["experiment"]):
            raise InputError(
                f"the same flags on every host are wanted; those of {', '.join(flags)} differ from "
                "the first host's: give the same command on all"
            )
        if first["examples"] != examples:
            raise InputError(
                f"the same data on every host are wanted; here are {examples} examples, "
                f"{first['examples']} on the first: copy them again"
            )


def check_shared(folder: Path, name: str = "environment.json", flag: str = "--workdir") -> None:
    """Raises InputError unless every host sees the file that the first has written in the folder.

    Args:
      flag: by which the folder is given.
    """

    def read() -> str:
        try:
            return (folder / name).read_text()
        except OSError:
            return ""

    wanted, until = hosts.exchange(read())[0], time.monotonic() + PATIENCE
    with hosts.together():
        while read() != wanted:
            if time.monotonic() > until:
                raise InputError(
                    f"one folder for all hosts is wanted; {folder} is here another than on the "
                    f"first: give a {flag} on a file system that they share"
                )
            time.sleep(0.1)


@contextmanager
def locked(folder: Path, flag: str = "--workdir") -> Iterator[None]:
    """Keeps other processes out of the folder that the flag gives.

    The lock goes with the process, however it ends. Of several hosts the first holds it.

    Raises:
      InUse: another process holds it.
      InputError: it cannot be made.
    """
    with ExitStack() as held:
        with hosts.together():
            if fcntl is not None and hosts.is_first():
                held.enter_context(_lock(folder, flag))
        yield


@contextmanager
def _lock(folder: Path, flag: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise _unwritable(folder, error, flag) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                f"{folder} is in use by another process: wait until it ends, or give another {flag}"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def _read(path: Path) -> Any:
    """The experiment as this version would write it: fields that are new have their defaults."""
    try:
        written = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); restore it, or give another --workdir"
        ) from error
    try:
        return to_json(from_json(written))
    except InputError:  # it holds classes of the user's own
        return written


def environment() -> dict[str, str]:
    """What a run ran on."""
    packages = ("encdec-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "hosts": str(jax.process_count()),
        "machine": platform.platform(),
        "commit": commit(),
    }


def commit() -> str:
    """Of this checkout; "unknown" where there is no checkout, or no git."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "unknown"
    return said.strip() or "unknown"


def facts(folder: Path) -> dict[str, str]:
    """Environment of a run, for its page; nothing where it is lost."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / "environment.json").read_text())
        return {str(name): str(fact) for name, fact in found.items()}
    return {}


def settings(folder: Path) -> dict[str, str]:
    """The resolved experiment of a run, for its page."""
    written = json.loads((folder / "experiment.json").read_text("utf-8"))
    return {"every field": json.dumps(written, indent=1)}
