"""The scripts that train several detectors: every form fits together, and stages follow on."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.data.augment import Augment
from encdec.data.detection import ShapesDetection
from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.find import find
from encdec.grid import folder_of
from encdec.heads.dense import MaskMLP
from encdec.summary import parameters
from encdec.tasks.masks import Masks
from encdec.train.loop import run, variables_of
from tests.test_experiments import script, tabled, traced

FOLDER = Path(__file__).parent.parent / "experiments"


STAGE, FAST = (script(FOLDER / f"{name}.py") for name in ("one_stage", "fast_rcnn"))
ENCODER = ResNet((1, 1, 1, 1), width=4)
SMALL = {"encoder": ENCODER, "augment": Augment((64, 64)), "batch": 4}


@pytest.mark.parametrize("form, data", [(f, "shapes") for f in STAGE.FORMS] + [("FPN", "bccd")])
def test_every_form_of_a_one_stage_detector_fits_together(form, data):
    job = dataclasses.replace(STAGE.DEFAULTS[data], width=8, **SMALL)
    assert traced(STAGE.experiment(job, form, 0)) == {"loss", "class", "box"}


def test_forms_change_one_thing_at_a_time():
    """All have the same anchors in all; the top-down path, the levels and the heads differ."""
    job = STAGE.DEFAULTS["shapes"]
    models = {form: STAGE.experiment(job, form, 0).model for form in STAGE.FORMS}
    decoders = {form: model.decoder for form, model in models.items()}
    sizes = {form: parameters(model) for form, model in models.items()}
    for form, model in models.items():
        finest = form.endswith("finest level")
        assert model.decoder.outputs() == ((4,) if finest else STAGE.STRIDES)
        kinds = {size for _, sizes in model.head.anchors.kinds for size in sizes}
        assert kinds == {size for _, sizes in models["FPN"].head.anchors.kinds for size in sizes}
        assert model.encoder == models["FPN"].encoder
    assert decoders["FPN"] == decoders["FPN, own heads"]
    assert decoders["FPN"] == decoders["SSD, one width"].clone(merge="add")
    assert decoders["FPN"] == decoders["FCN, finest level"].clone(levels="every")
    assert decoders["U-Net + SSD"] == decoders["U-Net, finest level"].clone(levels="every")
    assert sizes["SSD"]["decoder"] == 0
    assert sizes["FPN, own heads"]["head"] == 4 * sizes["FPN"]["head"]
    assert sizes["FCN, finest level"]["head"] == sizes["FPN, own heads"]["head"]


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(InputError, match=r"'FPN'; got 1 and \['YOLO'\]"):
        dataclasses.replace(STAGE.DEFAULTS["shapes"], forms=("FPN", "YOLO"))


@pytest.mark.parametrize(
    "form, data", [(f, "shapes") for f in [None, *FAST.FORMS]] + [("c", "bccd")]
)
def test_proposals_and_every_form_on_them_fit_together(form, data):
    small = SMALL | {"channels": 8, "hidden": 8, "proposals": (20, 10), "regions": 8}
    job = dataclasses.replace(FAST.DEFAULTS[data], **small)
    assert traced(FAST.experiment(job, form)) == {"loss", "class", "box"}


@pytest.mark.paper(
    "FPN §5.2",
    says="Fast R-CNN on the fixed proposals of RPN on the pyramid; features are not shared",
    does="`experiments/fast_rcnn.py`: a frozen proposer, and an encoder of the detector's own",
    differs="trained here on small data; C4 has two fully connected layers, not conv5",
)
def test_detectors_read_their_own_levels_and_the_same_proposals():
    job = FAST.DEFAULTS["shapes"]
    proposer = FAST.experiment(job, None)
    strides = {"a": (16,), "b": (32,), "f": (4,)}
    for form in FAST.FORMS:
        one = FAST.experiment(job, form)
        assert one.model.proposer == proposer.model and one.model.head.rpn is None
        assert one.optimizer.freeze == ("proposer",) and one.start == job.workdir / "proposals"
        assert one.model.head.strides == strides.get(form, (4, 8, 16, 32))
    whole = FAST.experiment(job, "c").model.decoder
    assert FAST.experiment(job, "d").model.decoder == whole.clone(merge="skip")
    assert FAST.experiment(job, "e").model.decoder == whole.clone(merge="top")


def test_a_proposer_has_an_encoder_of_its_own():
    """Also where both are made from one object."""
    small = SMALL | {"channels": 8, "hidden": 8, "proposals": (20, 10), "regions": 8}
    job = dataclasses.replace(FAST.DEFAULTS["shapes"], **small)
    model, images = FAST.detector(job, "c"), jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert set(params) == {"encoder", "decoder", "head", "proposer"}
    alone = jax.eval_shape(FAST.proposer(job).init, jax.random.key(0), images)["params"]
    shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (alone, params["proposer"])]
    assert shapes[0] == shapes[1]
    assert jax.tree.structure(params["encoder"]) == jax.tree.structure(alone["encoder"])


@pytest.mark.slow
def test_two_stages_at_toy_size(tmp_path, capsys):
    """Proposals stay to the bit; detectors start where they started; a second call trains
    nothing."""
    data = ShapesDetection(tmp_path, size=64, sides=(8, 32), train=12, val=5, test=2, max_boxes=16)
    small = SMALL | {"channels": 8, "hidden": 8, "proposals": (20, 10), "regions": 8}
    small |= {"data": data, "steps": (2, 2), "forms": ("c",)}
    job = dataclasses.replace(FAST.DEFAULTS["shapes"], workdir=tmp_path / "first", **small)
    rows = FAST.train(job)
    assert capsys.readouterr().out.count("step 1/2") == 2
    assert rows == FAST.train(job) == tabled(job.workdir)
    assert "step 1/2" not in capsys.readouterr().out
    first, second = FAST.experiment(job, None), FAST.experiment(job, "c")
    before = variables_of(first, job.workdir / "proposals")
    after = variables_of(second, folder_of(job.workdir, FAST.name("c"), 0))
    for kind, tree in before.items():
        assert jax.tree.all(jax.tree.map(np.array_equal, tree, after[kind]["proposer"]))
    again = dataclasses.replace(job, workdir=tmp_path / "again", start=job.workdir / "proposals")
    FAST.train(again)
    said = capsys.readouterr().out
    assert "arrays from" in said and "new: " in said
    new = said.split(str(again.workdir / "proposals"))[-1]
    assert "encoder/" not in new.split("new: ")[1].splitlines()[0]


@pytest.mark.slow
def test_mask_proposals_at_toy_size(tmp_path):
    """Trained, scored by masks, and found in an image of another size."""
    data = ShapesDetection(tmp_path, size=64, sides=(8, 32), train=12, val=5, test=2, max_boxes=16)
    base = script(FOLDER / "mask_proposals.py").experiment()
    head = MaskMLP((5, 7), channels=4, scale=4.0)
    model = base.model.clone(encoder=ENCODER, decoder=FPN(channels=8), head=head)
    one = dataclasses.replace(base, model=model, data=data, augment=Augment((64, 64)))
    one = dataclasses.replace(one, task=Masks(number=100), steps=2, batch=4)
    scores = run(one, tmp_path / "run")
    assert {"ar10", "ar100", "ar_s", "ar_m"} <= set(scores) and 0 <= scores["ar100"] <= 1
    image = np.full((50, 70, 3), 128, np.uint8)
    found = find(one.model, variables_of(one, tmp_path / "run"), image, task=one.task)
    assert found["masks"].shape == (100, 50, 70) and found["masks"].dtype == bool
    assert "windows" not in found and (found["boxes"] <= [50, 70, 50, 70]).all()
