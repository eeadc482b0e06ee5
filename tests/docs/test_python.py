"""Every block of Python in the pages runs, top to bottom, with small stand-ins for what it names:
runs, files, images, and encoders of the same kinds but narrow. By default as shapes alone."""

import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

import encdec
from encdec import weights
from encdec.encoders.resnet import ResNet
from encdec.train import loop
from tests.docs.pages import PAGES, ROOT, blocks, languages, name

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def zeros(model, images=(1, 64, 64, 3)):
    """Variables of the model, all zero: nothing is compiled."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(shapes))


@pytest.fixture
def names(tmp_path, monkeypatch, detector):
    """What a block finds defined."""
    found = detector("retinanet")
    narrow = partial(ResNet, width=4)
    model = encdec.EncoderDecoder(
        ResNet((1, 1, 1, 1), width=4), encdec.FPN(channels=4), encdec.Merge(3, channels=4)
    )
    variables = zeros(model)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(images[0]).save("photo.jpg")
    (tmp_path / "exported").mkdir()
    program = jax.export.export(jax.jit(lambda images: {"labels": images[..., 0]}))(images)
    (tmp_path / "exported" / "program.stablehlo").write_bytes(program.serialize())
    weights.export("resnet50.safetensors", model, variables, source="torchvision", part="encoder")
    for depth in (18, 50):
        monkeypatch.setattr(encdec, f"resnet{depth}", partial(narrow, (1, 1, 1, 1)))
    monkeypatch.setattr(encdec, "load_run", lambda folder: (found, zeros(found.model)))
    monkeypatch.setattr(loop, "variables_of", lambda experiment, folder: zeros(experiment.model))
    yield {
        "__name__": "page",
        "encdec": encdec,
        "Path": Path,
        "image": images[0],
        "images": images,
        "folder": tmp_path / "net",
        "model": model,
        "task": encdec.Segment(3),
        "variables": variables,
    }
    jax.clear_caches()  # of programs that were compiled with stand-ins


def run(page, names):
    """README's blocks stand alone; those of another page follow one another. One that imports an
    extra which is not installed is left out."""
    for number, block in enumerate(blocks(page, "python")):
        if any(find_spec(extra) is None for extra in re.findall(r"^import (\w+)$", block, re.M)):
            continue
        program = compile(block, f"{name(page)}, block {number + 1}", "exec")
        exec(program, dict(names) if page.name == "README.md" else names)


def shaped(method):
    """A method of modules that makes zeros of the right shapes: nothing is compiled."""

    def called(self, *args, **kwargs):
        shapes = jax.eval_shape(lambda *args: method(self, *args, **kwargs), *args)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return called


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_blocks_of_a_page_fit_together(page, names, monkeypatch):
    for method in ("init", "apply"):
        monkeypatch.setattr(nn.Module, method, shaped(getattr(nn.Module, method)))
    run(page, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
@pytest.mark.filterwarnings("default")
def test_sample_of_the_blocks_run(page, names):
    run(page, names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_its_language(page):
    assert languages(page) <= {"python", "sh", "text"}, "name one, so that it is tested"


def test_the_pages_have_blocks():
    assert len(WITH_PYTHON) >= 6 and ROOT / "README.md" in WITH_PYTHON
