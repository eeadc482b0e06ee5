"""docs/figures are what their script draws."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "figures.py"
SPEC = importlib.util.spec_from_file_location("docs_figures", SCRIPT)
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_the_committed_figure_is_the_script_s(name):
    written = (figures.FOLDER / f"{name}.svg").read_text("utf-8")
    assert written == figures.FIGURES[name]().svg(), "run python docs/figures.py"


def test_there_is_no_other_figure():
    assert {path.stem for path in figures.FOLDER.iterdir()} == set(figures.FIGURES)
