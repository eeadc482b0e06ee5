"""docs/papers.md is what its generator writes."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "papers.py"


@pytest.fixture(scope="module")
def papers():
    spec = importlib.util.spec_from_file_location("papers_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_committed_page_is_the_generators(papers):
    assert papers.PAGE.read_text() == papers.page(), "run python docs/papers.py"


def test_every_paper_has_rows_and_every_row_a_test(papers):
    found = [f for file in (papers.ROOT / "tests").rglob("test_*.py") for f in papers.facts(file)]
    assert {f.paper for f in found} == set(papers.PAPERS)
    assert all(f.says and f.does and f"def {f.test}(" in (papers.ROOT / f.file).read_text()
               for f in found)  # fmt: skip


@pytest.mark.parametrize(
    "mark, problem",
    [
        ('"FCN §1", says="a", does="b"', "says, does and differs"),
        ('says="a", does="b", differs=""', "wants a place"),
        ('"FCN §1", says=TEXT, does="b", differs=""', "literal texts"),
        ('"SegNet §1", says="a", does="b", differs=""', "wants one of FCN"),
    ],
)
def test_a_mark_that_no_row_can_be_made_of_is_an_error(
    papers, monkeypatch, tmp_path, mark, problem
):
    file = tmp_path / "test_a.py"
    file.write_text(f"@pytest.mark.paper({mark})\ndef test_b():\n    pass\n")
    monkeypatch.setattr(papers, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"test_a.py, test_b: .*{problem}"):
        list(papers.facts(file))


def test_a_row_has_place_texts_and_the_test(papers, monkeypatch, tmp_path):
    file = tmp_path / "test_a.py"
    file.write_text(
        '@pytest.mark.paper("Panoptic FPN §2", says="a|b", does="c", differs="d")\n'
        "@pytest.mark.slow\ndef test_e_f():\n    pass\n"
    )
    monkeypatch.setattr(papers, "ROOT", tmp_path)
    (fact,) = papers.facts(file)
    assert (fact.paper, fact.place) == ("Panoptic FPN", "§2")
    assert papers.row(fact) == "| §2: a\\|b | c | [e f](../test_a.py) | d |\n"
