"""What is said of a run, and what of it stands when the run goes on; sinks: test_sinks.py."""

import json
import time

import pytest

from encdec import report
from encdec.report import Report, history
from encdec.sinks import flatten


def strictly(text):
    """Parses JSON as a strict reader does: no NaN, no Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.fixture
def made(tmp_path):
    return Report(tmp_path, steps=10, batch=4)


def test_scores_that_do_not_exist_are_null_in_strict_json(made, capsys):
    made.train(1, {"loss": 0.5}, 1e-3)
    made.scores(1, "val", {"mean_iou": 0.25, "iou/3": float("nan")}, 1.0)
    lines = strictly((made.folder / "metrics.jsonl").read_text())
    assert lines[0] == {"step": 1, "loss": 0.5, "rate": 1e-3}
    assert lines[1] == {"step": 1, "val": {"mean_iou": 0.25, "iou/3": None}}
    assert "val: mean_iou 0.2500" in capsys.readouterr().out


def test_speed_counts_from_the_line_before_and_without_evaluation(made, monkeypatch, capsys):
    clock = iter([100.0, 110.0, 160.0])
    monkeypatch.setattr(report.time, "perf_counter", lambda: next(clock))
    made.train(1, {"loss": 1.0}, 0.1)
    made.train(6, {"loss": 1.0}, 0.1)
    made.scores(6, "val", {}, 48.0)
    made.train(7, {"loss": 1.0}, 0.1)
    speeds = [line.get("images_per_s") for line in history(made.folder)]
    assert speeds == [None, 2.0, None, 2.0]
    assert "step  7/10  loss 1.0000  2.0 images/s  0:06 left" in capsys.readouterr().out


def test_a_resumed_run_drops_what_it_makes_again(made):
    for step in range(1, 6):
        made.train(step, {"loss": 1.0 / step}, 0.1)
    with (made.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short
    made.resume(3)
    lines = strictly((made.folder / "metrics.jsonl").read_text())
    assert [line["step"] for line in lines] == [1, 2, 3]


def test_a_folder_without_metrics_has_no_history(tmp_path):
    assert history(tmp_path) == []


def test_numbers_are_flattened_by_name():
    line = {"step": 3, "val": {"mean_iou": 0.5, "iou/1": None}, "said": "x"}
    assert flatten(line) == {"step": 3, "val/mean_iou": 0.5}


def test_waiting_for_data_is_a_share_of_the_time_and_said_when_it_is_much(tmp_path, capsys):
    made = Report(tmp_path, steps=10, batch=4)
    made.train(1, {"loss": 1.0}, 0.1)
    time.sleep(0.05)
    made.waited += 0.02
    made.train(2, {"loss": 1.0}, 0.1)
    made.train(3, {"loss": 1.0}, 0.1)
    first, second, third = history(tmp_path)
    assert "waiting" not in first and 0 < second["waiting"] < 0.4 and third["waiting"] == 0
    said = capsys.readouterr().out.splitlines()
    assert "waits for data" in said[1] and "waits" not in said[0] + said[2]
