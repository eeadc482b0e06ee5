import json
import math
import shutil
from pathlib import Path

import pytest

from encdec import grid
from encdec.errors import InputError
from encdec.grid import (
    Cell,
    Ordering,
    cell,
    finish,
    interval,
    judged,
    measured,
    minutes,
)
from encdec.records import Record, read
from encdec.sections import named
from encdec.train.folder import InUse, locked
from encdec.train.stop import Stopped

PAPER = {"fine": {"mean_iou": 62.4}, "coarse": {"mean_iou": 59.4}}


def runs(*scores, seconds=60.0):
    return tuple(Cell(Path(), {"mean_iou": score}, seconds) for score in scores)


@pytest.fixture
def trained(monkeypatch):
    """Nothing is trained: the experiments that would have been, by folder."""
    seen = {}

    def run(experiment, folder):
        folder.mkdir(parents=True)
        seen[folder] = experiment
        return {"mean_iou": 0.5}

    monkeypatch.setattr(grid, "run", run)
    return seen


def test_a_run_that_has_ended_is_read_and_not_opened_again(tiny, finished, trained, tmp_path):
    """environment.json keeps what trained it; its seconds were never noted."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = (folder / "environment.json").read_text()
    found = cell(tiny(tensorboard=True), folder)
    assert not trained and found.seconds is None
    assert found.scores == json.loads((folder / "evaluation.json").read_text())["scores"]
    assert (folder / "environment.json").read_text() == before


def test_a_run_whose_process_is_still_at_its_report_is_left_to_it(tiny, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    with locked(folder), pytest.raises(InUse, match="in use by another process"):
        cell(tiny(tensorboard=True), folder)
    assert cell(tiny(tensorboard=True), folder).scores


def test_a_folder_with_another_run_is_refused(tiny, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    with pytest.raises(InputError, match="holds a run with other values of --seed"):
        cell(tiny(tensorboard=True, seed=5), folder)
    assert not (folder / "seconds.json").exists()


def test_seconds_of_a_stopped_run_add_up(tiny, monkeypatch, tmp_path):
    starts = iter([10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr(grid.time, "perf_counter", lambda: next(starts))

    def stopped(experiment, folder):
        folder.mkdir(parents=True, exist_ok=True)
        raise Stopped(2, "SIGINT: step 4 is saved")

    monkeypatch.setattr(grid, "run", stopped)
    with pytest.raises(Stopped):
        cell(tiny(), tmp_path / "run")
    monkeypatch.setattr(grid, "run", lambda experiment, folder: {"mean_iou": 0.5})
    assert cell(tiny(), tmp_path / "run").seconds == 5.0


def test_a_row_has_the_papers_figure_beside_each_score():
    row = measured(runs(0.4, 0.6), ("mean_iou",), PAPER["fine"], named)
    assert row == {"mean IoU": (0.5, pytest.approx(0.02**0.5)), "mean IoU, paper": 0.624}
    assert list(measured(runs(0.4), ("mean_iou",), {}).items()) == [
        ("mean_iou", 0.4),
        ("mean_iou, paper", None),
    ]
    assert measured(runs(0.4), ("mean_iou",)) == {"mean_iou": 0.4}


def test_minutes_are_the_mean_and_unknown_where_one_is():
    assert minutes(runs(0.1, 0.2, seconds=90.0)) == 1.5
    assert minutes((*runs(0.1), *runs(0.2, seconds=None))) is None


@pytest.mark.parametrize(
    "fine, coarse, verdict",
    [
        ((0.6,), (0.5,), "+0.100 (no spread): holds"),
        ((0.5,), (0.6,), "-0.100 (no spread): does not hold"),
        ((0.6, 0.7), (0.3, 0.4), "+0.300 (± 0.100): holds"),
        ((0.6, 0.7), (0.55, 0.65), "+0.050 (± 0.100): does not hold, within the spread"),
        ((0.55, 0.65), (0.6, 0.7), "-0.050 (± 0.100): does not hold, within the spread"),
        ((0.3, 0.4), (0.6, 0.7), "-0.300 (± 0.100): does not hold"),
        ((0.5, 0.5), (0.5, 0.5), "+0.000 (± 0.000): does not hold, within the spread"),
        ((math.nan,), (0.5,), "not measured"),
    ],
)
def test_an_ordering_holds_beyond_the_spread(fine, coarse, verdict):
    (found,) = judged(
        {"fine": runs(*fine), "coarse": runs(*coarse)},
        [Ordering("fine", "coarse", "mean_iou", PAPER)],
    )
    assert str(found) == f"fine above coarse, mean IoU, paper 62.4 > 59.4: {verdict}"
    assert found.holds == verdict.endswith(": holds")


def test_orderings_of_forms_that_were_not_run_are_left_out():
    ask = [Ordering("fine", "coarse", "mean_iou", {}), Ordering("fine", "none", "mean_iou", {})]
    (found,) = judged({"fine": runs(0.2), "coarse": runs(0.1)}, ask)
    assert found.paper == "in words"


def test_the_table_and_the_findings_are_printed_and_recorded(tmp_path, capsys):
    ordering = Ordering("fine", "coarse", "mean_iou", PAPER)
    findings = judged({"fine": runs(0.2), "coarse": runs(0.1)}, [ordering])
    rows, path = [{"form": "fine", "mean IoU": 0.2}], tmp_path / "grid" / "record.json"
    assert finish(Record(path, "A title"), "scores", rows, findings) == rows
    said = capsys.readouterr().out
    assert "   0.200 |" in said and said.endswith("+0.100 (no spread): holds\n")
    kept = read(path)
    assert kept["tables"] == [{"title": "scores", "rows": rows}]
    assert kept["findings"] == list(map(str, findings))


def test_a_run_of_a_recipe_is_a_row_of_its_record(tiny, trained, tmp_path):
    for name, seed in (("plain", 0), ("other", 1)):
        grid.kept_in(tmp_path / "record.json", tiny(seed=seed), tmp_path / name)
    (made,) = read(tmp_path / "record.json")["tables"]
    assert [(row["run"], row["seed"], row["steps"]) for row in made["rows"]] == [
        ("other", 1, 8),
        ("plain", 0, 8),
    ]
    assert all(row["mean IoU"] == 0.5 and row["minutes"] >= 0 for row in made["rows"])


def test_the_interval_is_students():
    middle, half = interval([0.1, 0.2, 0.3])
    assert middle == pytest.approx(0.2)
    assert half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)  # a table's t of 2 degrees
    assert interval([0.5]) == 0.5 and interval([0.5, math.nan]) is None


def test_a_grid_runs_what_its_record_lacks_the_first_seed_of_all_first(tiny, trained, tmp_path):
    forms = {"U-Net, a": [tiny(seed=0), tiny(seed=1)], "FPN": [tiny(seed=2), tiny(seed=3)]}
    grid.trained(forms, tmp_path, Record(tmp_path / "record.json", "A title"))
    order = [folder.relative_to(tmp_path).as_posix() for folder in trained]
    assert order == ["U_Net_a/seed0", "U_Net_a/seed1", "FPN/seed2", "FPN/seed3"]
    grid.trained(forms, tmp_path / "elsewhere", Record(tmp_path / "record.json", "A title"))
    assert len(trained) == 4


def test_a_recorded_grid_has_what_stands_in_the_record(tiny, trained, tmp_path):
    record = Record(tmp_path / "record.json", "A title")
    found = grid.recorded({"a form": [tiny(seed=0), tiny(seed=1)]}, tmp_path, record)
    assert [one.folder for one in found["a form"]] == [
        tmp_path / "a_form" / "seed0",
        tmp_path / "a_form" / "seed1",
    ]
    assert {one.scores["mean_iou"] for one in found["a form"]} == {0.5}


def test_a_run_that_another_process_is_at_is_left_to_it(tiny, trained, tmp_path, monkeypatch):
    train, tries = grid.run, []

    def run(experiment, folder):
        tries.append(folder.name)
        if experiment.seed == 0 and len(tries) == 1:
            raise InUse(f"{folder} is in use")
        return train(experiment, folder)

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(grid, "WAIT", 0.0)
    record = Record(tmp_path / "record.json", "A title")
    grid.trained({"FPN": [tiny(seed=0), tiny(seed=1)]}, tmp_path, record)
    assert tries == ["seed0", "seed1", "seed0"] and len(record.runs) == 2
