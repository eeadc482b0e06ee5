"""Every test: four CPU devices, no silent rank promotion, every signature's shapes checked."""

import os

from tests.flags import FAST

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=4 {FAST}"

from jaxtyping import install_import_hook

install_import_hook("encdec", "beartype.beartype")

import dataclasses  # noqa: E402 (the environment above must be set before)
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def drawn_anew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's `RNG` starts anew, so that a test's numbers hang on no test run before it."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program that one test compiled is read from disk by the others of its process, and by the
    commands that they start; nothing is kept."""
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
def detector(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Makes a small experiment of a kind of detector ("retinanet", "rpn", "rcnn", "masks") with the
    given fields changed."""
    import encdec
    from encdec.anchors import pyramid
    from encdec.data.detection import ShapesDetection
    from encdec.experiment import Experiment
    from encdec.heads.dense import Dense, rpn
    from encdec.heads.rcnn import RCNN
    from encdec.heads.regions import MaskHead, TwoFC
    from encdec.tasks.detect import Detect, Propose, Sampled
    from encdec.tasks.two_stage import TwoStage

    anchors = pyramid((12.0, 24.0), (4, 8))
    first = Propose(1, Sampled(16), number=100)
    regions = RCNN(
        rpn(anchors, 8),
        TwoFC(8, 16),
        strides=(4, 8),
        canonical=28.0,
        candidates=(30, 30),
        proposals=(20, 20),
        number=8,
        detections=10,
        threshold=0.0,
    )
    kinds = {
        "retinanet": (
            Dense(7, anchors, depth=1, channels=8),
            Detect(7, number=20, candidates=50, threshold=0.0),
        ),
        "rpn": (rpn(anchors, 8), first),
        "rcnn": (regions, TwoStage(7, first)),
        "masks": (regions.clone(mask=MaskHead(8, 8, 1)), TwoStage(7, first, masks=True)),
    }
    root = tmp_path_factory.mktemp("objects")

    def make(kind: str, **changes: object) -> Experiment:
        head, task = kinds[kind]
        encoder = encdec.Plain((4, 8, 8, 8))
        base = Experiment(
            model=encdec.EncoderDecoder(encoder, encdec.FPN((4, 8), 8), head),
            data=ShapesDetection(root, size=64, sides=(8, 32), train=12, val=5, test=2),
            augment=encdec.Augment((64, 64), scale=(0.8, 1.2), colour=0.1),
            task=task,
            steps=4,
            batch=4,
            log_every=1,
            save_every=2,
        )
        return dataclasses.replace(base, **changes)

    return make


@pytest.fixture(scope="session")
def detecting(detector: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of `detector("masks")`; copy it before you change it."""
    from encdec.train.loop import run

    folder = tmp_path_factory.mktemp("runs") / "detecting"
    run(detector("masks"), folder)
    return folder


@pytest.fixture(scope="session")
def finished(tiny: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of `tiny(tensorboard=True)`; copy it before you change it."""
    from encdec.train.loop import run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny(tensorboard=True), folder)
    return folder


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are heard, though a shell may ignore some of what it runs in the background."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
