import dataclasses
import json

import pytest

from encdec.data.datasets import CamVid
from encdec.errors import InputError
from encdec.experiment import load
from encdec.records import Record, placeless, plain, read


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path / "records" / "one.json", "A title")


def test_a_run_that_stands_in_the_file_is_found_again(record, finished):
    experiment = load(finished)
    assert record.run("U-Net", experiment) is None
    record.add("U-Net", experiment, finished, {"mean_iou": 0.5}, 12.5)
    again = Record(record.path, "A title")
    run = again.run("U-Net", experiment)
    assert run["scores"] == {"mean_iou": 0.5}
    assert again.run("U-Net", dataclasses.replace(experiment, seed=1)) is None
    assert again.run("U-Net", dataclasses.replace(experiment, steps=99)) is None
    assert again.run("FPN", experiment) is None
    assert (run["form"], run["seed"], run["seconds"]) == ("U-Net", 0, 12.5)
    assert run["memory_mib"] > 0 and run["jax"] and "commit" in run


def test_two_writers_lose_none_of_each_others_runs(record, finished):
    other, experiment = Record(record.path, "A title"), load(finished)
    record.add("U-Net", experiment, finished, {"mean_iou": 0.5}, None)
    other.add("FPN", dataclasses.replace(experiment, seed=1), finished, {"mean_iou": 0.6}, None)
    record.write([("walk", [{"form": "U-Net"}])], ["it holds"])
    found = read(record.path)
    assert [(run["form"], run["seed"]) for run in found["runs"]] == [("FPN", 1), ("U-Net", 0)]
    assert found["tables"] == [{"title": "walk", "rows": [{"form": "U-Net"}]}]
    assert found["findings"] == ["it holds"]


def test_a_form_that_is_another_now_takes_the_place_of_the_old(record, finished):
    experiment = load(finished)
    for seed in (0, 1):
        one = dataclasses.replace(experiment, seed=seed)
        record.add("U-Net", one, finished, {"mean_iou": 0.5}, None)
    longer = dataclasses.replace(experiment, steps=99)
    record.add("U-Net", longer, finished, {"mean_iou": 0.6}, None)
    again = Record(record.path, "A title")
    assert list(again.runs) == [("U-Net", 0)] and again.run("U-Net", longer) is not None


def test_a_record_from_before_a_field_was_there_still_counts(record, finished):
    experiment = load(finished)
    record.add("U-Net", experiment, finished, {"mean_iou": 0.5}, None)
    found = json.loads(record.path.read_text())
    del found["experiments"]["U-Net"]["patience"]
    record.path.write_text(json.dumps(found))
    assert Record(record.path, "A title").run("U-Net", experiment) is not None


def test_where_the_data_lie_is_no_matter(finished):
    experiment = load(finished)
    moved = [
        plain(dataclasses.replace(experiment, data=CamVid(root=finished / name)))
        for name in ("a", "b")
    ]
    assert moved[0] == moved[1] != plain(experiment)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"runs": [1]}', '{"runs": [{"form": "a"}]}', "{", "{}"]
)
def test_another_file_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(InputError, match="is no record of runs"):
        Record(tmp_path / "one.json", "A title")
    assert (tmp_path / "one.json").read_text() == text


def test_the_file_is_text_that_a_diff_can_show(record, finished):
    record.add("U-Net", load(finished), finished, {"mean_iou": 1 / 3}, None)
    assert json.loads(record.path.read_text())["runs"][0]["scores"] == {"mean_iou": 0.333333}
    assert record.path.read_text().count("\n") > 10


def test_commands_are_kept_without_the_places_of_files():
    given = "ablate.py camvid --workdir 'a b' --seeds 3 --data.root=c --record d.json --steps 5"
    assert placeless(given) == "ablate.py camvid --seeds 3 --steps 5"


@pytest.mark.parametrize("outside", ["/home/a", "~/a", "../a", "b/../../a"])
def test_of_what_a_run_starts_from_only_a_folder_outside_is_left_out(outside):
    given = f"finetune.py --start={outside}/mobilenet_v2 --weights weights/resnet18 --steps 5"
    kept = "finetune.py --start mobilenet_v2 --weights weights/resnet18 --steps 5"
    assert placeless(given) == kept
    assert placeless("one_stage.py --forms 'U-Net + SSD'") == "one_stage.py --forms 'U-Net + SSD'"
