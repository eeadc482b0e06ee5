"""The notebooks run from top to bottom, at a tiny size."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.flags import FAST

NOTEBOOKS = sorted((Path(__file__).parents[1] / "colab").glob("*.ipynb"))
SAMPLE = [path for path in NOTEBOOKS if path.stem == "in_your_own_code"]
COLAB = "https://colab.research.google.com/github/OWNER/encdec/blob/main/colab/"
INSTALL = r"""import sys

if "google\.colab" in sys\.modules:
    %pip install -q "encdec-jax(\[\w+\])? @ git\+https://github\.com/OWNER/encdec\""""


def execute(path, monkeypatch, tmp_path):
    monkeypatch.setenv("ENCDEC_STEPS", "2")
    monkeypatch.setenv("XLA_FLAGS", FAST if path in SAMPLE else "")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": tmp_path}}
    ).execute()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_sample_notebook_runs(path, monkeypatch, tmp_path):
    execute(path, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path not in SAMPLE], ids=lambda path: path.stem
)
def test_notebook_runs(path, monkeypatch, tmp_path):
    execute(path, monkeypatch, tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_saved_with_its_pictures(path):
    outputs = [
        output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])
    ]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_in_colab_and_installs_there_alone(path):
    notebook = nbformat.read(path, 4)
    title, install = notebook.cells[:2]
    assert title.source.startswith("# ")
    assert f"]({COLAB}{path.name})" in title.source
    assert re.fullmatch(INSTALL, install.source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_saved_clean(path):
    """Less than a megabyte, without noise, and without a path of the machine that ran it."""
    notebook = nbformat.read(path, 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert path.stat().st_size < 2**20
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|Users)/", path.read_text())
