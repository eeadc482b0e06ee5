"""A run's folder: which experiment it holds, and what it ran on."""

import json
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from encdec.errors import InputError
from encdec.experiment import Experiment, differences, from_json, to_json


def open_folder(experiment: Experiment, folder: Path) -> None:
    """Makes the run folder, or checks that it holds this very experiment.

    Writes experiment.json, environment.json and a copy of the script.

    Raises:
      InputError: it holds another one, or cannot be written.
    """
    path, mine = folder / "experiment.json", json.loads(json.dumps(to_json(experiment)))
    if path.exists() and (flags := differences(_read(path), mine)):
        raise InputError(
            f"{folder} holds a run with other values of {', '.join(flags)}: give the same to go on "
            "with it, or another --workdir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(mine, indent=1) + "\n")
        (folder / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n")
        script = Path(sys.argv[0])
        if script.suffix == ".py" and script.is_file():
            shutil.copy(script, folder / script.name)
    except OSError as error:
        raise InputError(
            f"wanted a run folder that can be written; {folder}: {error.strerror}; give another "
            "--workdir"
        ) from error


def _read(path: Path) -> Any:
    """The experiment as this version would write it: fields that are new have their defaults."""
    try:
        written = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} cannot be read ({error}); restore it, or give another --workdir"
        ) from error
    try:
        return to_json(from_json(written))
    except (InputError, KeyError):  # it holds classes of the user's own
        return written


def environment() -> dict[str, str]:
    """What a run ran on."""
    packages = ("encdec-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
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
    """Environment and resolved experiment of a run, for its page; what is lost is left out."""
    found: dict[str, str] = {}
    with suppress(OSError, ValueError):
        found |= json.loads((folder / "environment.json").read_text())
    experiment = json.loads((folder / "experiment.json").read_text())
    return found | {"experiment": json.dumps(experiment, indent=1)}
