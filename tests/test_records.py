import dataclasses
import json

import pytest

from encdec.data.datasets import CamVid
from encdec.errors import InputError
from encdec.experiment import load
from encdec.records import Record, digest, placeless, read


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path / "records" / "one.json", "A title")


def test_a_run_that_stands_in_the_file_is_found_again(record, finished):
    experiment = load(finished)
    assert record.scores(experiment) is None
    record.add("U-Net", experiment, finished, {"mean_iou": 0.5}, 12.5)
    again = Record(record.path, "A title")
    assert again.scores(experiment) == {"mean_iou": 0.5}
    assert again.scores(dataclasses.replace(experiment, seed=1)) is None
    run = again.run(experiment)
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


def test_the_digest_is_of_every_field_but_where_the_data_lie(finished):
    experiment = load(finished)
    assert digest(experiment) == digest(load(finished))
    assert digest(experiment) != digest(dataclasses.replace(experiment, steps=99))
    moved = [
        digest(dataclasses.replace(experiment, data=CamVid(root=finished / name)))
        for name in ("a", "b")
    ]
    assert moved[0] == moved[1] != digest(experiment)


@pytest.mark.parametrize("text", ["", "[]", '{"runs": [1]}', '{"runs": [{"form": "a"}]}', "{"])
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
    given = "ablate.py camvid --workdir a/b --seeds 3 --data.root=c --record d.json --steps 5"
    assert placeless(given) == "ablate.py camvid --seeds 3 --steps 5"
