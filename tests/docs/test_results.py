"""The page of results is what the records say, and the records' tables what their runs say."""

import re
from statistics import mean

import pytest

from encdec.records import read
from tests.docs.pages import ROOT
from tests.test_experiments import script

results = script(ROOT / "docs" / "results.py")
RECORDS = sorted(results.RECORDS.glob("*.json"))
SCORES = {"mean IoU": "mean_iou", "boundary F": "boundary_f", "pixel accuracy": "pixel_accuracy"}
SCORES |= {"AP": "ap", "AR1000": "ar1000", "object AP": "object_ap", "ROC AUC": "auc"}


def test_the_page_is_what_the_records_say():
    assert results.PAGE.read_text() == results.page(), "run python docs/results.py"


def test_what_differences_are_worth_stands_in_the_results():
    """Bold where a change's worth is larger than its ±."""
    text = (ROOT / "docs" / "which.md").read_text()
    text = text[text.index("## Which difference") : text.index("## Is FPN")]
    checked = 0
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        for bold, score, reach in re.findall(r"(\**)(-?\d\.\d{3}) ± (\d\.\d{3})", table):
            assert re.search(rf"[ *]{re.escape(score)} ± {reach}[ *]", results.PAGE.read_text())
            if table.startswith("| change ") and score != reach:
                assert bool(bold) == (abs(float(score)) > float(reach))
            checked += 1
    assert checked > 80


@pytest.mark.parametrize(
    ("head", "count"),
    [
        ("Which encoder", 9),
        ("On drawn scenes: three seeds", 5),
        ("On street scenes: 23 or 24 minutes each", 3),
        ("The same, from ImageNet's weights", 6),
    ],
)
def test_scores_of_a_row_stand_in_one_row_of_the_results(head, count):
    text = (ROOT / "docs" / "which.md").read_text().partition(f"\n## {head}\n")[2]
    rows = re.findall(r"^\|.*", text.partition("\n## ")[0], re.MULTILINE)
    scores = [re.findall(r"\b0\.\d{3}(?: ± 0\.\d{3})?(?=[ *])", row) for row in rows]
    known = [set(re.split(r"[ *]*\|[ *]*", row)) for row in results.PAGE.read_text().splitlines()]
    found = [set(row) for row in scores if row]
    assert len(found) == count
    assert [row for row in found if not any(row <= cells for cells in known)] == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_tables_are_means_of_the_runs(path):
    record, checked = read(path), 0
    for row in (row for made in record["tables"] for row in made["rows"]):
        form = next(iter(row.values()))
        runs = [run for run in record["runs"] if run["form"] == form]
        for column, score in SCORES.items():
            if runs and column in row:
                found = row[column][0] if isinstance(row[column], list) else row[column]
                assert found == pytest.approx(mean(run["scores"][score] for run in runs), abs=1e-5)
                checked += 1
    assert checked or not record["runs"]
