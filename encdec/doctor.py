"""encdec doctor: what this machine has for encdec, and what is wrong with it."""

import dataclasses
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import jax
from packaging.requirements import Requirement

from encdec.data.datasets import Dataset, cache_folder
from encdec.errors import InputError, visible
from encdec.flags import parse
from encdec.speed import BATCH, SIDE, training_speed

NAME = "encdec-jax"
LEAST_FREE = 2**30
ACCELERATORS = {
    "/dev/nvidiactl": ("an NVIDIA GPU", "cuda13"),
    "/dev/accel0": ("a TPU", "tpu"),
    "/dev/vfio/0": ("a TPU", "tpu"),
}
"""Device files, what has them, and the extra of JAX that uses it."""

EXTRA = re.compile(r"""extra == ['"](\w+)""")

Line = tuple[str, str]
"""A heading, or "problem", and what to say."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Devices, versions, cache, data folders, a speed test; and what is wrong, with what to do.

    Attributes:
      speed: measure how fast the first device trains, in about five seconds.
    """

    speed: bool = True


def doctor_command(args: list[str], datasets: Mapping[str, type[Dataset]]) -> None:
    """doctor: devices, versions, cache, data folders, a speed test; what is wrong, and what to do.

    Exit code 2 where something is wrong.
    """
    asked = parse(Doctor, args, prog="encdec doctor")
    problems = 0
    for heading, said in examined(datasets, asked.speed):
        problems += heading == "problem"
        print(visible(f"{heading:10}{said}"), flush=True)
    print(f"{problems} problem(s)")
    if problems:
        raise SystemExit(2)


def examined(datasets: Mapping[str, type[Dataset]], speed: bool) -> Iterator[Line]:
    """All that there is to say."""
    yield from versions()
    yield from devices()
    yield from cache()
    yield from data(datasets)
    if speed:
        yield from speed_test()


def versions() -> Iterator[Line]:
    """Python and packages; one that is missing or too old is a problem, an extra's is not."""
    yield "python", f"{platform.python_version()}, {sys.executable}"
    try:
        wanted = [Requirement(text) for text in metadata.requires(NAME) or ()]
    except metadata.PackageNotFoundError:
        yield "problem", "encdec is not installed, only found: pip install -e . in its folder"
        return
    core = [one for one in wanted if one.marker is None]
    said = [f"{one.name} {found}" for one in core if (found := installed(one.name))]
    yield "versions", ", ".join([f"encdec {metadata.version(NAME)}", *said])
    for one in core:
        found = installed(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            yield "problem", f"{one} is wanted, {found or 'nothing'} is there: pip install -e ."
    lacking: dict[str, list[str]] = {}
    for one in wanted:
        if (extra := EXTRA.search(str(one.marker))) and installed(one.name) is None:
            lacking.setdefault(extra[1], []).append(one.name)
    for extra, names in lacking.items():
        yield "extra", f'without {", ".join(names)}: pip install -e ".[{extra}]"'


def installed(name: str) -> str | None:
    """The version that is there, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Line]:
    """What JAX computes on, and an accelerator that it does not use."""
    try:
        found = jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        yield "problem", f"JAX finds no device ({error}): JAX_PLATFORMS is {platforms!r}; unset it"
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "devices", f"{len(found)} x {found[0].device_kind}, of {jax.process_count()} host(s)"
    yield "processor", f"{cores} core(s), {platform.machine()}, {sys.platform}"
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "ENCDEC_HOSTS"):
        if value := os.environ.get(name):
            yield "set", f"{name}={value}"
    if found[0].platform != "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    for file, (what, extra) in ACCELERATORS.items():
        if Path(file).exists():
            yield "problem", f'there is {what} that JAX does not use: pip install -U "jax[{extra}]"'
            return


def cache() -> Iterator[Line]:
    """Where drawn data and compiled programs are kept, and how large they are."""
    folder = cache_folder()
    programs = jax.config.jax_compilation_cache_dir
    if not jax.config.jax_enable_compilation_cache:
        programs = None
    yield "cache", f"{folder}, {size(folder):,.0f} MiB; what is in it can be deleted at any time"
    if programs:
        yield "programs", f"{programs}, {size(Path(programs)):,.0f} MiB of compiled programs"
    else:
        yield "programs", "compiled programs are not kept: JAX_ENABLE_COMPILATION_CACHE is off"
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        yield "problem", f"{folder} cannot be written: set ENCDEC_CACHE to a folder that can"
    elif (free := shutil.disk_usage(there).free) < LEAST_FREE:
        yield "problem", f"{free / 2**20:,.0f} MiB are free at {folder}: make room"


def size(folder: Path) -> float:
    """MiB of all files below it."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(path, file)).st_size
            except OSError:  # deleted meanwhile
                continue
    return total / 2**20


def data(datasets: Mapping[str, type[Dataset]]) -> Iterator[Line]:
    """The known sets below $ENCDEC_DATA, with the number of their images to validate on."""
    root = os.environ.get("ENCDEC_DATA")
    if not root:
        yield "data", "ENCDEC_DATA is not set: say --data.root DIR, or set it to a folder of sets"
        return
    try:
        inside = sorted(path for path in Path(root).iterdir() if path.is_dir())
    except OSError as error:
        yield "problem", f"ENCDEC_DATA is {root}: {error.strerror}; set it to a folder of data sets"
        return
    found, wrong = [], []
    for name, kind in datasets.items():
        if name in ("folder", "tfds", "tfds_detection") or "shapes" in name:
            continue  # without a folder of their own below it
        try:
            found.append(f"{name} ({len(kind().source('val'))})")
        except InputError as error:
            if any(f"{path}" in str(error) for path in inside):
                wrong.append(f"{name}: {error}")
    yield "data", f"{root}: {', '.join(found) or 'no set that is known'}; in (…) images of val"
    for line in wrong:
        yield "problem", line


def speed_test() -> Iterator[Line]:
    """How fast the first device trains."""
    speed, compiled = training_speed()
    what = f"training a small FPN, {BATCH} images of {SIDE}x{SIDE}"
    yield "speed", f"{speed / 1e9:,.1f} GFLOP/s {what}; compiled in {compiled:.1f} s"
