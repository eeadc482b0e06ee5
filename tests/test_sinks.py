"""metrics.csv, TensorBoard and W&B; metrics.jsonl: test_report.py."""

import csv
import struct
import sys

import numpy as np
import pytest

from encdec.errors import InputError
from encdec.report import Report
from encdec.sinks import Csv, WandB

PICTURE = np.zeros((4, 6, 3), np.uint8)


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_spreadsheet_has_a_row_for_each_step_and_a_column_for_each_number(tmp_path):
    sink = Csv(tmp_path)
    sink.resume([])
    sink.write({"step": 1, "loss": 0.5})
    sink.write({"step": 2, "loss": 0.25, "rate": None})
    sink.write({"step": 2, "val": {"mean_iou": 0.75, "iou/3": None}})
    sink.write({"step": 3, "loss": 0.125})
    assert rows(tmp_path) == [
        {"step": "1", "loss": "0.5", "val/mean_iou": ""},
        {"step": "2", "loss": "0.25", "val/mean_iou": "0.75"},
        {"step": "3", "loss": "0.125", "val/mean_iou": ""},
    ]


def test_it_is_appended_to_where_no_column_is_new(tmp_path, monkeypatch):
    sink = Csv(tmp_path)
    sink.resume([])
    sink.write({"step": 1, "loss": 0.5})
    monkeypatch.setattr(sink, "_rewrite", lambda: pytest.fail("written anew"))
    for step in (2, 3):
        sink.write({"step": step, "loss": 0.5})
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_a_resumed_run_doubles_no_row(tmp_path, capsys):
    for start, last in ((0, 5), (3, 6)):
        report = Report(tmp_path, steps=10, batch=4)
        report.resume(start)
        for step in range(start + 1, last + 1):
            report.train(step, {"loss": 1.0 / step}, 0.1)
        report.close()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "5", "6"]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6


def events(folder):
    """Events of all files, by time: records of length, checksum, event, checksum."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted((folder / "tensorboard").glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack("<Q", data[at : at + 8])
            found.append(proto.Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_tensorboard_gets_numbers_and_pictures(tmp_path, capsys):
    report = Report(tmp_path, steps=10, batch=4, tensorboard=True)
    assert report.draws
    report.resume(0)
    report.train(1, {"loss": 0.5}, 1e-3)
    report.scores(1, "val", {"mean_iou": 0.25, "iou/3": float("nan")}, 1.0)
    report.pictures(1, {"val/image_0": PICTURE}, 0.0)
    report.close()
    values = {v.tag: v for e in events(tmp_path) for v in e.summary.value}
    assert values["val/mean_iou"].simple_value == 0.25 and "val/iou/3" not in values
    assert (values["val/image_0"].image.height, values["val/image_0"].image.width) == (4, 6)


def test_tensorboard_is_told_where_a_resumed_run_goes_on(tmp_path, capsys):
    for start in (0, 3):
        report = Report(tmp_path, steps=10, batch=4, tensorboard=True)
        report.resume(start)
        for step in range(start + 1, 6):
            report.train(step, {"loss": 1.0}, 0.1)
        report.close()
    began = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert began == [1, 4]  # TensorBoard drops what came before of these steps


def test_a_run_that_had_ended_leaves_no_empty_events(tmp_path):
    report = Report(tmp_path, steps=10, batch=4, tensorboard=True)
    report.resume(10)
    report.close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("package, extra", [("tensorboardX", "log"), ("wandb", "wandb")])
def test_without_an_extra_one_line_says_what_to_install(package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    asked = {"tensorboard": True} if extra == "log" else {"wandb": {}}
    with pytest.raises(InputError, match=rf'pip install -e "\.\[{extra}\]"'):
        Report(tmp_path, steps=10, batch=4, **asked)


class FakeRun:
    """A W&B run that has the steps before `step`."""

    def __init__(self, step):
        self.step, self.offline, self.dir = step, True, "here"
        self.logged, self.ended = [], False

    def log(self, things, step):
        self.logged.append((step, things))

    def finish(self):
        self.ended = True


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes the sink, with a W&B in place of the real one."""

    def make(step):
        api = type(sys)("wandb")
        run, given = FakeRun(step), {}
        api.Settings, api.Image = dict, lambda picture: picture.shape
        api.errors = type("errors", (), {"Error": OSError})
        api.init = lambda **settings: given.update(settings) or run
        monkeypatch.setitem(sys.modules, "wandb", api)
        return WandB(tmp_path, {"steps": 10}), run, given

    return make


@pytest.mark.parametrize("had, sent", [(0, [1, 2, 3, 4]), (2, [2, 3, 4]), (5, [])])
def test_wandb_gets_what_it_has_not_yet(had, sent, made, capsys):
    sink, run, given = made(had)
    sink.resume([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    sink.write({"step": 3, "loss": 0.5, "val": {"ap": None}})
    sink.write({"step": 4, "loss": 0.25})
    sink.show(4, {"val/image_0": PICTURE})
    sink.close()
    assert [step for step, _ in run.logged] == sent + [4] * bool(sent)
    assert run.logged[-1:] == [(4, {"val/image_0": (4, 6, 3)})] * bool(sent)
    assert run.ended and given["config"] == {"steps": 10} and given["resume"] == "allow"


def test_a_wandb_run_keeps_its_id_and_its_offline_parts_make_place(made, tmp_path, capsys):
    ids = []
    for _ in range(2):
        sink, _, given = made(0)
        sink.write({"step": 1, "loss": 1.0})
        ids.append(given["id"])
        (tmp_path / "wandb" / f"offline-run-1-{ids[0]}").mkdir()
        (tmp_path / "wandb" / "offline-run-1-other").mkdir(exist_ok=True)
        sink.close()
        (tmp_path / "wandb" / "offline-run-1-other" / "kept").write_text("")
    assert ids[0] == ids[1] and (tmp_path / "wandb" / "offline-run-1-other" / "kept").exists()


def test_a_wandb_folder_that_leads_elsewhere_is_left_alone(made, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wandb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads elsewhere"):
        made(0)[0].write({"step": 1, "loss": 1.0})


def test_what_wandb_refuses_is_one_line(made, tmp_path, monkeypatch):
    sink, _, _ = made(0)
    monkeypatch.setattr(
        sink.api, "init", lambda **settings: (_ for _ in ()).throw(OSError("no key"))
    )
    with pytest.raises(InputError, match="no key; `wandb login` first, or set WANDB_MODE=offline"):
        sink.write({"step": 1, "loss": 1.0})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_offline(tmp_path, monkeypatch, capsys):
    """Two parts of one run: the second holds all of it."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 3):
        report = Report(tmp_path, steps=10, batch=4, wandb={"steps": 10})
        report.resume(start)
        for step in range(start + 1, 6):
            report.train(step, {"loss": 1.0}, 0.1)
        report.pictures(5, {"val/image_0": PICTURE}, 0.0)
        report.close()
    wandb.teardown()  # its process may still be writing
    (part,) = (tmp_path / "wandb").glob("offline-run-*")
    assert sorted(history_of(next(part.glob("*.wandb")).read_bytes())) == [1, 2, 3, 4, 5]
    assert len(list(part.rglob("*.png"))) == 1


def history_of(data):
    """Steps of the records of history: after 7 bytes blocks of 32 KiB, of records of checksum,
    length, kind (whole 1, first 2, middle 3, last 4)."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, part, steps = 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        part, at = part + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):
            record = Record.FromString(part)
            steps += [record.history.step.num] * record.HasField("history")
            part = b""
    return steps
