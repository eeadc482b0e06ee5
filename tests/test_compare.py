"""`encdec compare`: several runs, of one task, on one page."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from encdec import compare
from encdec.errors import InputError
from encdec.train.page import Evaluation, save, saved


def copied(run, folder, data=None, **fields):
    """A copy of a run with other fields of its experiment, and of its data."""
    shutil.copytree(run, folder)
    path = folder / "experiment.json"
    written = json.loads(path.read_text())
    written |= fields
    written["data"] |= data or {}
    path.write_text(json.dumps(written))
    return folder


def test_two_runs_are_compared_from_the_command_line(finished, tmp_path, call):
    other = copied(finished, tmp_path / "<b>other", patience=3)
    out = tmp_path / "out"
    code, said, err = call("compare", finished, other, "--out", out)
    assert code == 0, err
    pictures = {f"{name}.png" for name in ("comparison", "curves", "differences")}
    assert {path.name for path in out.iterdir()} == {"report.html", "table.json", *pictures}
    text = (out / "report.html").read_text()
    for words in ("--patience", "&lt;b&gt;other", "IoU by class", "Confusions", "Worst: image"):
        assert words in text
    assert "<b>other" not in text
    first, second = json.loads((out / "table.json").read_text())
    assert first["mean IoU"] == second["mean IoU"] == saved(finished).scores["mean_iou"]
    assert first["parameters"] == 1784 and "| mean IoU" in said.replace("  ", " ")


def test_runs_that_differ_in_the_seed_are_one_row(finished, tmp_path):
    folders = [copied(finished, tmp_path / "net" / f"seed{s}", seed=s) for s in range(2)]
    scores = saved(folders[1]).scores
    save(folders[1], Evaluation(scores | {"mean_iou": scores["mean_iou"] + 0.1}, None, {}))
    folders.append(copied(finished, tmp_path / "other" / "seed0", patience=3))
    groups = compare.grouped([compare.read(folder) for folder in folders])
    assert {name: len(group) for name, group in groups.items()} == {"net": 2, "other/seed0": 1}
    rows = compare._rows(groups, {"net": {}, "other/seed0": {}})
    (mean, spread), alone = (row["mean IoU"] for row in rows)
    assert mean == pytest.approx(alone + 0.05) and spread == pytest.approx(0.1 / 2**0.5)


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a/x/seed0", "a/y/seed0"], ["x", "y"]),
        (["a", "a/b"], ["a", "a/b"]),
        (["r/one", "r/two", "s/one"], ["r/one", "r/two", "s/one"]),
    ],
)
def test_runs_are_named_by_what_their_paths_do_not_share(paths, names, tiny, tmp_path):
    runs = [
        compare.Result(tmp_path / path, tiny(patience=i), [], Evaluation({}, None, {}))
        for i, path in enumerate(paths, 1)
    ]
    assert list(compare.grouped(runs)) == names


def test_segmentation_and_detection_are_compared_apart(finished, detecting, tmp_path, call):
    code, _, err = call("compare", finished, detecting, "--out", tmp_path / "out")
    assert code == 2 and "segments and" in err and "finds objects" in err
    assert len(err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_one_run_is_none_to_compare(finished, call):
    code, _, err = call("compare", finished, finished)
    assert code == 2 and "wants two runs or more" in err


@pytest.mark.slow
def test_detectors_are_compared(detecting, tmp_path, capsys):
    folders = (detecting, copied(detecting, tmp_path / "other", patience=3))
    groups = compare.grouped([compare.read(folder) for folder in folders])
    compare.write(groups, tmp_path / "out", title="Two")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "AP at IoU 0.5 by class" in text and " missed" in text and "Confusions" not in text
    assert (tmp_path / "out" / "comparison.png").exists()


def test_of_other_images_the_scores_alone_are_compared(finished, tmp_path, capsys):
    folders = (finished, copied(finished, tmp_path / "other", {"val": 4}))
    groups = compare.grouped([compare.read(folder) for folder in folders])
    compare.write(groups, tmp_path / "out", title="Two")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Scored on different data" in text and "<img" not in text and "IoU by class" in text


def test_where_checkpoints_or_data_are_gone_the_numbers_are_compared(finished, tmp_path, capsys):
    folders = [copied(finished, tmp_path / name, patience=i + 1) for i, name in enumerate("ab")]
    for folder in folders:
        shutil.rmtree(folder / "checkpoints")
    groups = compare.grouped([compare.read(folder) for folder in folders])
    compare.write(groups, tmp_path / "out", title="Two")
    assert "none: wanted a checkpoint" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", '{"scores": []}', '{"scores": {}, "images": {"x": 1}}', "[" * 100_000),
        '{"scores": {}, "images": {}, "confusion": [[1, 2], [3]]}',
        '{"scores": {}, "images": {}, "confusion": [[1, 2]]}',
        '{"scores": {"a": "b"}, "images": {}, "confusion": null}',
        '{"scores": {}, "images": {"1": null}, "confusion": null}',
    ],
)
def test_a_damaged_evaluation_is_none(text, tmp_path):
    (tmp_path / "evaluation.json").write_text(text)
    assert saved(tmp_path) is None


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    made = Evaluation({"a": 0.5, "b": float("nan")}, np.eye(2, dtype=np.int64), {3: 0.25})
    save(tmp_path, made)
    found = saved(tmp_path)
    assert found.images == {3: 0.25} and found.scores["a"] == 0.5 and np.isnan(found.scores["b"])
    np.testing.assert_array_equal(found.confusion, made.confusion)


def test_a_run_without_an_evaluation_is_scored(finished, tmp_path, capsys):
    other = copied(finished, tmp_path / "other")
    (other / "evaluation.json").unlink()
    found, wanted = compare.read(other).found, saved(finished)
    assert found.images == wanted.images and "scored now" in capsys.readouterr().err
    np.testing.assert_array_equal(found.confusion, wanted.confusion)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="wanted a run folder"):
        compare.read(tmp_path)


def test_flags_that_differ_are_told_with_their_values(tiny, tmp_path):
    one = tiny()
    other = tiny(patience=7, model=one.model.clone(decoder=one.model.decoder.clone(channels=(6,))))
    runs = {
        name: compare.Result(tmp_path, made, [], Evaluation({}, None, {}))
        for name, made in (("a", one), ("b", replace(other, start=tmp_path)))
    }
    rows = {row.pop("flag"): row for row in compare._changes(runs)}
    assert rows == {
        "--model.decoder.channels": {"a": "[4]", "b": "[6]"},
        "--patience": {"a": "10", "b": "7"},
        "--start": {"a": None, "b": str(tmp_path)},
    }
