"""The page of results is what the records say, and the records' tables what their runs say."""

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
