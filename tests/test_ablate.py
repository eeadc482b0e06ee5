"""experiments/ablate.py: forms that differ in one thing, a grid of them, its tables."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from encdec import grid
from encdec.data.augment import Augment
from encdec.data.datasets import Shapes
from encdec.decoders.topdown import TopDown
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.records import read
from tests.docs.pages import ROOT
from tests.test_experiments import script

PLACES = ("strides", "channels", "lateral", "upsample", "merge", "refine", "output", "levels")
ablate = script(ROOT / "experiments" / "ablate.py")


def made(form):
    return ablate.model(form, ResNet(width=4), 8, 8)


@pytest.mark.parametrize("form", ablate.FORMS)
def test_every_form_fits_together_and_differs_from_its_base_in_one_place(form):
    model, base = made(form), ablate.FORMS[form][1]
    images = jnp.zeros((1, 64, 64, 3))
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert outputs["logits"].shape == (1, 64, 64, 8)
    assert isinstance(model.decoder, TopDown)
    if base:
        both = [one.decoder for one in (model, made(base))]
        changed = {name for name in PLACES if len({repr(getattr(d, name)) for d in both}) == 2}
        # Scores are a width, a lateral and a head at once; adding wants equal widths.
        more = {"channels", "lateral"} if "not scores" in ablate.FORMS[form][2] else set()
        more |= {"lateral", "merge"} if form == "U-Net, added" else set()
        assert changed == more or len(changed) == 1


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Four forms, two seeds."""
    few = ("FCN-8s", "FCN-4s", "FPN", "FPN, bilinear")
    kept = {form: ablate.FORMS[form] for form in few}
    kept["FPN"] = ("walk", "FCN-4s", "all else")
    monkeypatch.setattr(ablate, "FORMS", kept)
    return ablate.Ablate(
        Shapes(train=4, val=2, test=2, size=32, split="test"),
        Augment((32, 32)),
        tmp_path,
        ("wire", "dot"),
        encoder=ResNet(width=2),
        width=4,
        parts=("walk", "upsample"),
        forms=few,
        steps=2,
        batch=4,
        seeds=2,
    )


def check(job, rows, said):
    assert [row["form"] for row in rows] == ["FCN-8s", "FCN-4s", "FPN", "FPN", "FPN, bilinear"]
    assert rows[1]["changes"] == "FCN-8s" and len(rows[1]["worth: mean IoU"]) == 2
    found = read(job.workdir / "record.json")
    assert len(found["runs"]) == 8 and [one["title"] for one in found["tables"]] == [*job.parts]
    assert found["tables"][0]["rows"] == json.loads(json.dumps(rows[:3]))
    assert "<svg" in (job.workdir / "cost.svg").read_text()
    assert "worth: boundary F" in said


def test_a_grid_makes_tables_a_record_and_a_figure(job, monkeypatch, capsys):
    def run(experiment, folder):
        folder.mkdir(parents=True)
        line = {"step": 2, "images_per_s": 10.0, "memory_mib": 5.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        score = (experiment.seed + 1) * len(repr(experiment.model.decoder)) / 1e5
        return {"mean_iou": score, "boundary_f": score / 2, "iou/6": score / 4, "iou/7": 0.0}

    monkeypatch.setattr(grid, "run", run)
    rows = ablate.train(job)
    check(job, rows, capsys.readouterr().out)
    first, second = rows[0]["mean IoU"], rows[1]["mean IoU"]
    assert rows[1]["worth: mean IoU"][0] == pytest.approx(second[0] - first[0], abs=1e-6)
    assert rows[0]["IoU of small"][0] == pytest.approx(first[0] / 8, abs=1e-6)
    assert rows[0]["IoU of wire"][0] == pytest.approx(first[0] / 4, abs=1e-6)
    assert rows[0]["IoU of dot"] == (0, 0)
    assert rows[0]["images/s"] == 10.0 and rows[0]["memory MiB"] == 5.0
    elsewhere, made = job.workdir / "elsewhere", {"walk": rows[:3], "upsample": rows[3:]}
    monkeypatch.setattr(ablate, "rows", lambda job, part, record: made[part])
    ablate.train(dataclasses.replace(job, workdir=elsewhere, record=job.workdir / "record.json"))
    assert [one.name for one in elsewhere.iterdir()] == ["cost.svg"]  # nothing was run again


def test_some_forms_come_with_those_that_they_change(job, monkeypatch):
    wanted = {}
    monkeypatch.setattr(ablate, "trained", lambda runs, *_: wanted.update(runs))
    monkeypatch.setattr(ablate, "rows", lambda job, part, _: [{"form": f} for f in job.of(part)])
    monkeypatch.setattr(ablate, "write_cost", lambda *_: None)
    made = ablate.train(dataclasses.replace(job, forms=("FPN, bilinear",)))
    assert list(wanted) == ["FPN", "FPN, bilinear"] and made == [{"form": "FPN, bilinear"}]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"forms": ("FPM",)}, "--forms some of 'FCN-8s', .*; got 2 and .'FPM'.$"),
        ({"seeds": 0}, "--seeds wants 1 or more .*; got 0 and"),
        ({"forms": ("FPN",), "parts": ("upsample",)}, "wanted a form of the parts .*upsample"),
    ],
)
def test_what_names_no_run_is_one_line(job, changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(job, **changes)


@pytest.mark.slow
def test_a_small_grid_is_trained(job, capsys):
    check(job, ablate.train(job), capsys.readouterr().out)
