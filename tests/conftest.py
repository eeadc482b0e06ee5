"""Every test: four CPU devices, no silent rank promotion, every signature's shapes checked."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # nothing of a test is kept
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"  # compiles fast
)

from jaxtyping import install_import_hook

install_import_hook("encdec", "beartype.beartype")

import dataclasses  # noqa: E402 (the environment above must be set before)
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program that one test compiled is read from disk by the others, subprocesses too."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("programs"))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Makes a small experiment with BatchNorm and augmentation, with the given fields changed."""
    import encdec
    from encdec.data.datasets import Shapes
    from encdec.decoders.unet import DoubleConv
    from encdec.experiment import Experiment

    base = Experiment(
        model=encdec.EncoderDecoder(
            encdec.Plain((4, 8), norm="batch"),
            encdec.UNet(strides=(1, 2), channels=(4,), refine=DoubleConv(norm="batch")),
            encdec.Pixel(8),
        ),
        data=Shapes(tmp_path_factory.mktemp("shapes"), size=32, train=12, val=5, test=2),
        augment=encdec.Augment((32, 32), scale=(0.8, 1.2), colour=0.1),
        task=encdec.Segment(8),
        steps=8,
        batch=4,
        log_every=1,
        save_every=4,
    )
    return lambda **changes: dataclasses.replace(base, **changes)


@pytest.fixture(scope="session")
def finished(tiny: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of `tiny(tensorboard=True)`; copy it before you change it."""
    from encdec.train.loop import run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny(tensorboard=True), folder)
    return folder


@pytest.fixture
def call(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Calls the command line; returns (exit code, output, errors)."""

    from encdec import cli

    def called(*args: object, experiment: object = None) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # `quicken` adds to it
            patch.setattr(sys, "argv", ["encdec", *map(str, args)])
            code = 0
            try:
                cli.main(experiment)
            except SystemExit as stop:
                code = stop.code
        said = capfd.readouterr()
        return code, said.out, said.err

    return called
