"""An experiment as JSON, and what differs between two."""

import dataclasses
import importlib.util
import inspect
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import encdec
from encdec.data.border import Border
from encdec.data.datasets import TFDS
from encdec.errors import InputError
from encdec.experiment import check_classes, differences, from_json, load, title, to_json
from encdec.train.loop import variables_of
from encdec.train.optimizer import Optimizer

SCRIPTS = sorted(
    path
    for path in (Path(__file__).parent.parent / "experiments").glob("*_*.py")
    if "def experiment(" in path.read_text()
)


def scripted(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = {"seed": 0}
    forms = getattr(module, "FORMS", None) or getattr(module, "FIGURES", None)
    if forms:  # of one job several experiments
        given |= {"job": next(iter(module.DEFAULTS.values())), "form": list(forms)[-1]}
    wanted = inspect.signature(module.experiment).parameters
    return module.experiment(**{name: given[name] for name in wanted if name in given})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_survives_json(path):
    experiment = scripted(path)
    text = json.dumps(to_json(experiment), allow_nan=False)
    again = from_json(json.loads(text))
    assert again == experiment and hash(again.model) == hash(experiment.model)
    assert to_json(again) == to_json(experiment)


def test_names_that_are_no_modules_survive_json(tiny):
    for experiment in (tiny(optimizer=Optimizer("sgd")), tiny(data=TFDS(name="oxford_iiit_pet"))):
        assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_paths_survive_json(tiny):
    experiment = tiny()
    again = from_json(json.loads(json.dumps(to_json(experiment))))
    assert again == experiment and isinstance(again.data.root, Path)


@pytest.mark.parametrize("border", [None, Border(), Border(w0=5.0, balance=False)])
def test_a_border_or_none_survives_json(border, tiny):
    plain = tiny()
    experiment = tiny(data=dataclasses.replace(plain.data, border=border))
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
    changed = ["--data.border"] if border else []
    assert differences(to_json(plain), to_json(experiment)) == changed


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "optax:MultiSteps",
        "encdecoy.model:EncoderDecoder",
        "encdec.train.loop:Path",
        "encdec.experiment:to_json",
        "encdec.experiment:Missing",
        "encdec.missing:Experiment",
        "encdec.experiment",
    ],
)
def test_classes_outside_encdec_are_refused(name):
    with pytest.raises(InputError, match=f"wanted a class of encdec, got {name}"):
        from_json({"is": name, "command": "true"})


def test_fields_of_another_version_are_refused(tiny):
    written = to_json(tiny()) | {"colour_of_the_bikeshed": "green"}
    with pytest.raises(InputError, match="another version of encdec.*colour_of_the_bikeshed"):
        from_json(written)


def test_differences_are_named_as_flags(tiny):
    one = tiny()
    model = one.model.clone(decoder=one.model.decoder.clone(channels=(6,)))
    other = tiny(
        seed=4,
        log_every=7,
        model=model,
        data=dataclasses.replace(one.data, size=48, root=Path("elsewhere")),
        optimizer=dataclasses.replace(one.optimizer, rate=3.0),
    )
    flags = differences(to_json(one), to_json(other))
    wanted = [
        "--seed",
        "--log-every",
        "--model.decoder.channels",
        "--data.size",
        "--data.root",
        "--optimizer.rate",
    ]
    assert sorted(flags) == sorted(wanted) and not differences(to_json(one), to_json(one))


def test_another_class_is_one_difference(tiny):
    from encdec import FPN

    one = tiny()
    other = tiny(model=one.model.clone(decoder=FPN()))
    assert differences(to_json(one), to_json(other)) == ["--model.decoder"]


@pytest.mark.parametrize("name", ["steps", "batch", "log_every", "save_every", "keep"])
def test_counts_below_one_are_refused(name, tiny):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} must be at least 1; got 0"):
        tiny(**{name: 0})


def test_a_run_is_loaded_from_its_folder(finished, tiny):
    assert load(finished) == tiny(tensorboard=True)


def test_what_a_run_learned_is_loaded_with_it(finished, tiny):
    experiment, variables = encdec.load_run(finished)
    assert experiment == tiny(tensorboard=True)
    learned = variables_of(experiment, finished)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, learned))


def test_a_head_with_masks_wants_a_task_with_them(detector):
    ours, without = detector("masks"), detector("rcnn")
    check_classes(ours)
    for head, task in ((ours, without), (without, ours)):
        with pytest.raises(InputError, match="say --task.masks"):
            check_classes(dataclasses.replace(head, task=task.task))


@pytest.mark.parametrize("text", [None, "", '{"is": "encdec.exp', '{"steps": 3}', "[]"])
def test_a_folder_that_is_no_run_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(InputError, match=f"{tmp_path}.*name another") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_the_folder_of_a_grid_says_which_runs_it_holds(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "grid" / "U-Net" / "seed0")
    for folder in (tmp_path / "grid", tmp_path / "grid" / "U-Net"):
        with pytest.raises(InputError, match="such as .*grid/U-Net/seed0$"):
            load(folder)


def test_a_run_is_called_as_its_folder_and_one_of_a_grid_as_its_row():
    assert title(Path("runs/unet")) == "unet" and title(Path("grid/U-Net/seed0")) == "U-Net-seed0"
