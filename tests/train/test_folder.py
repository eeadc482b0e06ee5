"""What a run folder holds, and which run it takes."""

import dataclasses
import json
import sys

import pytest

from encdec.errors import InputError
from encdec.experiment import from_json
from encdec.train.folder import environment, facts, open_folder, settings, write_whole


def test_the_folder_holds_experiment_environment_and_script(tiny, tmp_path, monkeypatch):
    script = tmp_path / "mine.py"
    script.write_text("# the script\n")
    monkeypatch.setattr(sys, "argv", [str(script), "--steps", "8"])
    open_folder(tiny(), tmp_path / "a" / "run")
    run = tmp_path / "a" / "run"
    assert from_json(json.loads((run / "experiment.json").read_text())) == tiny()
    assert (run / "mine.py").read_text() == "# the script\n"
    found = json.loads((run / "environment.json").read_text())
    assert found["command"] == "mine.py --steps 8" and found["devices"] == "4 x cpu"
    assert facts(run) == found and '"seed": 0' in settings(run)["every field"]


def test_a_notebooks_kernel_is_no_script(tiny, tmp_path, monkeypatch):
    kernel = tmp_path / "ipykernel_launcher.py"
    kernel.write_text("")
    monkeypatch.setattr(sys, "argv", [str(kernel)])
    open_folder(tiny(), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.py"))


def test_a_machine_without_git_has_an_unknown_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] == "unknown"


def test_the_environment_names_versions_and_commit():
    found = environment()
    assert {"python", "jax", "jaxlib", "flax", "optax", "hosts", "machine", "commit"} <= set(found)
    assert all(found.values())


def test_the_same_experiment_opens_its_folder_again(tiny, tmp_path):
    open_folder(tiny(), tmp_path)
    open_folder(tiny(), tmp_path)


def test_so_does_one_that_was_written_before_a_field_was_added(tiny, tmp_path):
    open_folder(tiny(), tmp_path)
    path = tmp_path / "experiment.json"
    written = json.loads(path.read_text())
    del written["remat"], written["augment"]["elastic"]
    path.write_text(json.dumps(written))
    open_folder(tiny(), tmp_path)
    path.write_text(json.dumps(written | {"steps": 7}))
    with pytest.raises(InputError, match="other values of --steps:"):
        open_folder(tiny(), tmp_path)


def test_turns_may_change_when_a_run_goes_on(tiny, tmp_path):
    open_folder(tiny(), tmp_path)
    open_folder(tiny(tta=("flip",)), tmp_path)
    assert json.loads((tmp_path / "experiment.json").read_text())["tta"] == ["flip"]


@pytest.mark.parametrize(
    "change, flag",
    [
        (lambda e: dataclasses.replace(e, seed=1), "--seed"),
        (lambda e: dataclasses.replace(e, evaluate_every=2), "--evaluate-every"),
        (
            lambda e: dataclasses.replace(e, model=e.model.clone(dtype="bfloat16")),
            "--model.dtype",
        ),
        (
            lambda e: dataclasses.replace(e, optimizer=dataclasses.replace(e.optimizer, ema=0.9)),
            "--optimizer.ema",
        ),
    ],
    ids=["seed", "evaluate_every", "dtype", "ema"],
)
def test_another_experiment_is_refused_with_its_flag(change, flag, tiny, tmp_path):
    open_folder(tiny(), tmp_path)
    before = (tmp_path / "experiment.json").read_text()
    with pytest.raises(InputError, match=f"other values of .*{flag}.*another --workdir"):
        open_folder(change(tiny()), tmp_path)
    assert (tmp_path / "experiment.json").read_text() == before


def test_a_damaged_experiment_is_refused_with_its_path(tiny, tmp_path):
    (tmp_path / "experiment.json").write_text('{"is": "encd')
    with pytest.raises(InputError, match="experiment.json"):
        open_folder(tiny(), tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def killed():
        yield "af"
        raise KeyboardInterrupt

    path = tmp_path / "metrics.jsonl"
    write_whole(path, "before")
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, killed())
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --workdir"):
        open_folder(tiny(), tmp_path / "file" / "run")
