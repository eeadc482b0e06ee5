"""experiments/encoders.py: encoders by decoders, the same minutes for each."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from encdec import grid, weights
from encdec.data.augment import Augment
from encdec.data.datasets import Shapes
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.records import Record, read
from encdec.train.folder import InUse
from tests.docs.pages import ROOT
from tests.test_experiments import script

encoders = script(ROOT / "experiments" / "encoders.py")
DATA = Shapes(train=4, val=2, test=2, size=32, split="test")


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(
        encoders, "ENCODERS", {"plain": ResNet(width=2), "resnet18": ResNet(width=4)}
    )
    return encoders.Encoders(
        DATA,
        Augment((32, 32)),
        tmp_path,
        encoders=("plain", "resnet18"),
        seeds=2,
        several=("plain",),
    )


@pytest.mark.parametrize("decoder", ["FCN-8s", "U-Net", "FPN"])
@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_every_pair_fits_together(name, decoder):
    model = encoders.model(decoder, encoders.ENCODERS[name], 11)
    shapes, _ = jax.eval_shape(
        model.init_with_output, jax.random.key(0), jnp.zeros((1, 96, 128, 3))
    )
    assert shapes["logits"].shape == (1, 96, 128, 11)


@pytest.mark.slow
def test_all_pairs_are_run_once_and_tabled(job, tmp_path, monkeypatch, capsys):
    measured, trained = [], []

    def run(experiment, folder):
        folder.mkdir(parents=True)
        trained.append(folder.relative_to(tmp_path).as_posix())
        line = {"step": 2, "images_per_s": 10.0, "memory_mib": 5.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return {"pixel_accuracy": 0.9, "mean_iou": 0.5 + experiment.seed / 10, "boundary_f": 0.4}

    def steps_in(experiment, seconds):
        measured.append(seconds)
        return 70

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(encoders, "steps_in", steps_in)
    rows = encoders.train(job)
    assert len(rows) == 6 and len(trained) == 9 and measured == [480.0] * 6
    assert rows[0]["encoder, decoder, from"] == "plain, FCN-8s, random" and rows[0]["steps"] == 70
    assert rows[0]["mean IoU"] == pytest.approx((0.55, 0.0707107))
    tables = read(tmp_path / "record.json")["tables"]
    assert [len(one["rows"]) for one in tables] == [6, 2]
    assert encoders.train(job) == rows  # nothing is measured or run again
    assert len(trained) == 9 and len(measured) == 6
    assert "mean IoU, U-Net" in capsys.readouterr().out


def test_a_pair_that_another_process_is_at_comes_last(job, monkeypatch):
    asked = []

    def run(experiment, folder):
        asked.append(f"{folder.parent.name}/{folder.name}")
        if len(asked) == 1:
            raise InUse("another process has it")
        folder.mkdir(parents=True)
        return {"pixel_accuracy": 0.9, "mean_iou": 0.5, "boundary_f": 0.4}

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(encoders, "steps_in", lambda *_: 20)
    monkeypatch.setattr(encoders, "row", lambda job, name, *_: {"name": name})
    monkeypatch.setattr(encoders, "crossed", lambda rows: rows)
    encoders.train(
        dataclasses.replace(job, encoders=("plain",), decoders=("U-Net", "FPN"), seeds=1)
    )
    assert asked == [
        "plain_U_Net_random/seed0",
        "plain_FPN_random/seed0",
        "plain_U_Net_random/seed0",
    ]


def test_minutes_that_nobody_noted_are_none(job, tmp_path):
    scores = {"pixel_accuracy": 0.9, "mean_iou": 0.5, "boundary_f": 0.4}
    found = {"scores": scores, "seconds": None, "images_per_s": 9.0}
    record = SimpleNamespace(run=lambda name, one: found | {"seconds": 60.0 if one.seed else None})
    made = encoders.row(job, "plain, FPN, random", _runs(job, tmp_path), record)
    assert made["minutes"] is None and made["mean IoU"] == (0.5, 0.0)


def test_weights_that_are_there_are_a_second_start(job, tmp_path, monkeypatch):
    encoder = ResNet(width=4)
    variables = encoder.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    weights.save(tmp_path / "all" / "resnet18", encoder, variables, card="x")
    job = dataclasses.replace(job, weights=tmp_path / "all")
    names = [name for name in encoders.pairs(job) if name.endswith("ImageNet")]
    assert names == [f"resnet18, {d}, ImageNet" for d in ("FCN-8s", "U-Net", "FPN")]
    monkeypatch.setattr(encoders, "steps_in", lambda *_: 20)
    (one,) = encoders.experiments(job, names[0], Record(tmp_path / "record.json", ""))
    assert one.start == tmp_path / "all" / "resnet18" and one.model.encoder == encoder


@pytest.mark.slow
def test_steps_are_measured(job, tmp_path):
    (one, _) = (dataclasses.replace(x, batch=8) for x in _runs(job, tmp_path))
    assert type(encoders.steps_in(one, 20.0)) is int  # `range` takes no other
    assert encoders.steps_in(one, 20.0) >= 2 * encoders.steps_in(one, 5.0) >= 20


def _runs(job, tmp_path):
    record = Record(tmp_path / "record.json", "")
    record.runs["plain, FPN, random", 0] = {"steps": 10}
    return encoders.experiments(job, "plain, FPN, random", record)


@pytest.mark.parametrize("wrong", [{"encoders": ("vgg",)}, {"minutes": 0.0}, {"seeds": 0}])
def test_wrong_fields_are_one_line(job, wrong):
    with pytest.raises(InputError):
        dataclasses.replace(job, **wrong)
