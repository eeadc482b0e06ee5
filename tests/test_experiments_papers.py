"""The scripts of the papers' own ablations: every form fits together, and orderings are judged."""

import dataclasses
from operator import attrgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import layers
from encdec.data.augment import Augment
from encdec.data.border import Border
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.summary import parameters
from encdec.train.loop import variables_of
from tests.test_experiments import script, tabled, traced

FOLDER = Path(__file__).parent.parent / "experiments"
BOUND, TABLE2, MOMENTUM = (
    script(FOLDER / f"fcn_{name}.py") for name in ("upper_bound", "table2", "momentum")
)
UNET, BRANCH = (script(FOLDER / f"{name}_ablations.py") for name in ("unet", "semantic_fpn"))
ENCODER = ResNet((1, 1, 1, 1), width=4)

LABEL = np.array([[0, 1, 2], [1, 1, 255], [0, 0, 255], [2, 2, 255], [2, 0, 1]], np.uint8)


def test_coarse_labels_of_a_case_solved_by_hand():
    """Cells of 2x2 of 5x3 pixels: two wide, three high, cut off at the right and the bottom."""
    found = BOUND.coarse(LABEL, 2, 3)
    majority = [[1, 2], [0, 0], [0, 1]]  # 0 and 2 are as frequent in two; nothing is labelled
    centre = [[1, 2], [2, 0], [0, 1]]  # the majority's where ignored, and where a cell ends before
    for way, cells in {"majority": majority, "centre": centre}.items():
        assert (found[way] == np.kron(cells, np.ones((2, 2), int))[:5, :3]).all()


def test_shares_come_up_as_scores_do():
    label = np.random.default_rng(0).integers(0, 3, (12, 8)).astype(np.uint8)
    shares = np.eye(3, dtype=np.float32)[label].reshape(3, 4, 2, 4, 3).mean((1, 3))
    scores = np.asarray(layers.bilinear(jnp.asarray(shares)[None], 4))[0]
    best = np.sort(scores, -1)
    sure = best[..., -1] - best[..., -2] > 1e-5
    guess = BOUND.coarse(label, 4, 3)["bilinear"]
    assert sure.mean() > 0.9 and (guess == scores.argmax(-1))[sure].all()


@pytest.mark.paper(
    "FCN App. A",
    says="labels made coarse by 128, 64, 32, 16, 8, 4 and brought back reach mean IU 50.9 … 98.5",
    does="`experiments/fcn_upper_bound.py`, on any data of labels, beside these figures",
    differs="on other data; the paper does not say how labels are made coarse, so in three ways",
)
def test_cells_of_one_pixel_lose_nothing_and_larger_ones_more(tiny, tmp_path, capsys):
    job = BOUND.UpperBound(tiny().data, factors=(16, 4, 1), workdir=tmp_path)
    rows = BOUND.measure(job)
    assert rows[2]["mean IoU"] == rows[2]["mean IoU, centre"] == rows[2]["mean IoU, bilinear"] == 1
    assert rows[0]["mean IoU"] < rows[1]["mean IoU"] < 1
    assert [row["mean IoU, paper"] for row in rows] == [0.928, 0.985, None]
    assert rows == tabled(tmp_path)
    said = capsys.readouterr().out
    assert "factor 4 above factor 16, mean IoU, paper 98.5 > 92.8: +" in said
    assert "factor 1 above" not in said


def test_upper_bounds_are_of_every_kind_of_labels():
    assert {"shapes", "camvid", "voc", "isbi_em", "folder"} <= set(BOUND.DEFAULTS)
    assert "bccd" not in BOUND.DEFAULTS
    with pytest.raises(InputError, match=r"--factors wants one or more, of 1 or more; got \(0,\)"):
        dataclasses.replace(BOUND.DEFAULTS["shapes"], factors=(0,))


@pytest.mark.parametrize(
    "form, data", [(f, "shapes") for f in TABLE2.STRIDES] + [("FCN-8s", "camvid")]
)
def test_every_form_of_table_2_fits_together(form, data):
    job = dataclasses.replace(TABLE2.DEFAULTS[data], encoder=ENCODER)
    assert "loss" in traced(TABLE2.experiment(job, form, 0))


@pytest.mark.paper(
    "FCN Table 2",
    says="32s-fixed, 32s, 16s, 8s: mean IU 45.4, 59.4, 62.4, 62.7",
    does="`experiments/fcn_table2.py`, beside these figures; orderings are judged",
    differs="on other data and a small encoder; every form from the same start, by Adam",
)
def test_forms_of_table_2_differ_in_their_strides_and_in_what_moves(tmp_path):
    job = dataclasses.replace(TABLE2.DEFAULTS["shapes"], start=tmp_path)
    runs = {form: TABLE2.experiment(job, form, 3) for form in TABLE2.STRIDES}
    fixed, whole = runs["FCN-32s-fixed"], runs["FCN-32s"]
    assert fixed.model == whole.model and fixed.start == whole.start == tmp_path
    assert (fixed.optimizer.freeze, whole.optimizer.freeze) == (("encoder",), ())
    same = {(one.model.encoder, one.steps, one.batch, one.seed) for one in runs.values()}
    assert same == {(job.encoder, 250, 8, 3)}
    assert [ordering.figures() for ordering in TABLE2.ORDERINGS] == [
        "59.4 > 45.4",
        "62.4 > 59.4",
        "62.7 > 62.4",
    ]


def small(tiny):
    return {"data": tiny().data, "augment": tiny().augment, "encoder": ENCODER}


def test_a_sample_of_table_2_at_toy_size(tiny, tmp_path, capsys):
    """The frozen encoder's statistics stay to the bit; a second call trains nothing."""
    job = dataclasses.replace(TABLE2.DEFAULTS["shapes"], **small(tiny), workdir=tmp_path)
    job = dataclasses.replace(job, forms=("FCN-32s-fixed",), steps=2, batch=4)
    rows = TABLE2.train(job)
    assert capsys.readouterr().out.count("step 1/2") == 1
    assert rows[0]["mean IoU, paper"] == 0.454 and rows[0]["minutes"] > 0
    assert rows == TABLE2.train(job) == tabled(tmp_path)
    said = capsys.readouterr().out
    assert "step 1/2" not in said and "above" not in said  # of orderings no form is alone
    run = TABLE2.experiment(job, "FCN-32s-fixed", 0)
    after = variables_of(run, tmp_path / "FCN_32s_fixed/seed0")["batch_stats"]["encoder"]
    for path, value in jax.tree_util.tree_leaves_with_path(after):
        assert (np.asarray(value) == (path[-1].key == "var")).all()


@pytest.mark.slow
def test_table_2_at_toy_size(tiny, tmp_path, capsys):
    job = dataclasses.replace(TABLE2.DEFAULTS["shapes"], **small(tiny), workdir=tmp_path)
    TABLE2.train(dataclasses.replace(job, steps=2, batch=4))
    said = capsys.readouterr().out
    assert said.count("step 1/2") == 4 and said.count(" above ") == 3


@pytest.mark.parametrize("data", MOMENTUM.DEFAULTS)
def test_ways_of_momentum_take_as_many_images_at_one_rate(data):
    job = MOMENTUM.DEFAULTS[data]
    runs = {form: MOMENTUM.experiment(job, form, 0) for form in MOMENTUM.FORMS}
    assert {one.steps * one.batch for one in runs.values()} == {job.images}
    assert {one.optimizer.rate for one in runs.values()} == {job.rate}
    made = {form: (one.batch, one.optimizer.momentum) for form, one in runs.items()}
    assert made == {"accumulated": (20, 0.9), "online": (1, 0.9), "heavy": (1, 0.99)}
    assert job.encoder.norm == "group"
    one = dataclasses.replace(job, encoder=ENCODER.clone(width=32, norm="group"))
    assert "loss" in traced(MOMENTUM.experiment(one, "heavy", 0))


@pytest.mark.slow
def test_momentum_at_toy_size(tiny, tmp_path, capsys):
    job = dataclasses.replace(MOMENTUM.DEFAULTS["shapes"], **small(tiny), workdir=tmp_path)
    job = dataclasses.replace(job, batches=(8, 4), images=8, seeds=2)
    rows = MOMENTUM.train(job)
    assert [row["batch"] for row in rows] == [8, 4, 4] and len(rows[0]["mean IoU"]) == 2
    assert "heavy above online, mean IoU, paper 63.6 > 60.7: " in capsys.readouterr().out


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(InputError, match=r"as many as a batch has; got 1, \(20, 1\) and 8"):
        dataclasses.replace(MOMENTUM.DEFAULTS["shapes"], images=8)


@pytest.mark.parametrize("data", UNET.DEFAULTS)
@pytest.mark.parametrize("form", UNET.FORMS)
def test_every_form_of_unet_fits_together_and_lacks_one_thing(form, data):
    job = UNET.DEFAULTS[data]
    whole, one = (UNET.experiment(job, name, 0) for name in ("U-Net", form))
    assert "loss" in traced(one)
    parts = ("model.encoder", "model.decoder", "data", "augment")
    wanted = {
        "U-Net": set(),
        "no skips": {"model.decoder"},
        "no elastic": {"augment"},
        "no weight map": {"data"},
        "padded": {"model.encoder", "model.decoder", "augment"},
    }[form]
    assert {part for part in parts if attrgetter(part)(one) != attrgetter(part)(whole)} == wanted
    assert one.augment.elastic == (0 if form == "no elastic" else job.augment.elastic)


@pytest.mark.paper(
    "U-Net §3",
    says="elastic deformation is key with few images; weights teach it gaps; skips localise (§2)",
    does="`experiments/unet_ablations.py`: without each, and padded; orderings are judged",
    differs="smaller widths, Adam, and data and scores of ours; the paper has no such table",
)
def test_all_forms_of_unet_give_as_many_pixels_of_a_tile():
    for job in UNET.DEFAULTS.values():
        gives = {UNET.sizes(job, form)[1] for form in UNET.FORMS}
        assert len(gives) == 1 and UNET.sizes(job, "padded")[0] in gives
        padded = UNET.model(job, "padded")
        assert UNET.geometry(padded, *gives).output in gives


def toy_unet(tiny, tmp_path):
    data = dataclasses.replace(tiny().data, border=Border())
    augment = Augment((36, 36), elastic=2.0, border="mirror")
    small = {"data": data, "augment": augment, "channels": (4, 8), "steps": 2}
    return dataclasses.replace(UNET.DEFAULTS["shapes"], **small, workdir=tmp_path)


def test_a_sample_of_unet_at_toy_size(tiny, tmp_path, capsys):
    job = dataclasses.replace(toy_unet(tiny, tmp_path), forms=("no skips",))
    (row,) = UNET.train(job)
    assert row["sees"] == "36 px" and 0 <= row["mean IoU"] <= 1
    assert "U-Net above" not in capsys.readouterr().out


@pytest.mark.slow
def test_unet_at_toy_size(tiny, tmp_path, capsys):
    """A second call trains nothing."""
    job = toy_unet(tiny, tmp_path)
    rows = UNET.train(job)
    said = capsys.readouterr().out
    assert said.count("step 1/2") == 5
    for form in UNET.CLAIMED:
        assert f"U-Net above {form}, mean IoU, paper in words: " in said
    assert rows == UNET.train(job) and "step 1/2" not in capsys.readouterr().out


def test_a_unet_without_what_is_left_out_is_refused():
    job = UNET.DEFAULTS["shapes"]
    with pytest.raises(InputError, match="got --augment.elastic 5.0, data.border:none"):
        dataclasses.replace(job, data=dataclasses.replace(job.data, border=None))


def toy_branches(tiny, tmp_path):
    job = dataclasses.replace(BRANCH.DEFAULTS["shapes"], **small(tiny), workdir=tmp_path)
    return dataclasses.replace(job, channels=8, steps=2, batch=4)


@pytest.mark.parametrize("data", BRANCH.DEFAULTS)
@pytest.mark.parametrize("form", BRANCH.FIGURES)
def test_every_branch_of_semantic_fpn_fits_together(form, data):
    job = dataclasses.replace(BRANCH.DEFAULTS[data], encoder=ENCODER, channels=8)
    one = BRANCH.experiment(job, form, 0)
    assert "loss" in traced(one) and f", {one.model.head.channels}" in form


@pytest.mark.paper(
    "Panoptic FPN ablations",
    says="branch of 64, 128, 256 channels: 74.1, 74.5, 74.6; concatenated, not added, 74.4",
    does="`experiments/semantic_fpn_ablations.py`, beside these figures; orderings are judged",
    differs="on other data, a small encoder and a narrower pyramid; by Adam",
)
def test_branches_differ_in_width_or_in_how_they_are_joined():
    job = BRANCH.DEFAULTS["camvid"]
    runs = {form: BRANCH.experiment(job, form, 0) for form in BRANCH.FIGURES}
    assert {(one.model.encoder, one.model.decoder) for one in runs.values()} == {
        (job.encoder, FPN(channels=128))
    }
    heads = {form: parameters(one.model)["head"] for form, one in runs.items()}
    assert heads["concatenation, 128"] - heads["sum, 128"] == 3 * 128 * 11
    assert heads["sum, 64"] < heads["sum, 128"] < heads["sum, 256"]
    figures = [ordering.figures() for ordering in BRANCH.ORDERINGS]
    assert figures == ["74.5 > 74.1", "74.6 > 74.5", "74.5 > 74.4"]


@pytest.mark.slow
def test_two_branches_at_toy_size(tiny, tmp_path, capsys):
    job = dataclasses.replace(toy_branches(tiny, tmp_path), forms=("concatenation, 128",))
    (row,) = BRANCH.train(job)
    assert row["mean IoU, paper"] == 0.744 and 0 <= row["mean IoU"] <= 1


@pytest.mark.slow
def test_branches_at_toy_size(tiny, tmp_path, capsys):
    """A second call trains nothing."""
    job = toy_branches(tiny, tmp_path)
    rows = BRANCH.train(job)
    said = capsys.readouterr().out
    assert said.count("step 1/2") == 4 and said.count(" above ") == 3
    assert rows == BRANCH.train(job) and "step 1/2" not in capsys.readouterr().out
