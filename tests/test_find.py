"""The objects of one image."""

from dataclasses import replace

import numpy as np
import pytest

import encdec
from encdec.errors import InputError
from encdec.evaluate import evaluator, objects
from encdec.find import find, programs
from encdec.train.loop import first_state


def image(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["retinanet", "masks"])
def given(request, detector):
    experiment = detector(request.param)
    return experiment, first_state(experiment).variables()


def test_what_is_found_is_what_evaluation_finds(given):
    experiment, variables = given
    source = experiment.data.source("val")
    for number, wanted, _ in objects(experiment, variables, evaluator(experiment), chosen=(0, 1)):
        found = find(experiment.model, variables, source[number]["image"], task=experiment.task)
        real = wanted["valid"]
        assert real.sum() == len(found["scores"]) > 3
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(found[name], wanted[name][real], rtol=1e-3, atol=1e-3)
        assert ("masks" in found) == (experiment.task.by_class == "ap50" and "masks" in wanted)


def test_images_of_any_size_have_their_objects_inside(given):
    experiment, variables = given
    before = programs()
    for size in ((40, 61), (33, 64), (64, 64)):
        found = find(experiment.model, variables, image(*size), task=experiment.task)
        assert found["boxes"].min() >= 0 and (np.diff(found["scores"]) <= 0).all()
        assert (found["boxes"][:, 2:] <= np.array([size])).all()
        if "masks" in found:
            assert found["masks"].shape == (len(found["boxes"]), *size)
            assert found["masks"].dtype == bool
    assert programs() - before <= 1


def test_a_shrunk_image_has_boxes_of_its_own_size(given):
    experiment, variables = given
    large = image(64, 64).repeat(2, 0).repeat(2, 1)[:127, :125]
    found = find(experiment.model, variables, large, task=experiment.task, shrink=2)
    assert (found["boxes"][:, 2:] <= np.array([[127, 125]])).all() and found["boxes"].max() > 100
    if "masks" in found:
        assert found["masks"].shape[1:] == (127, 125)


def test_a_run_of_resized_images_finds_boxes_of_the_files_own_size(detector):
    """Evaluation and `find` agree; the truth is the file's own, its areas too."""
    experiment = detector("retinanet")
    variables = first_state(experiment).variables()
    resized = replace(experiment, data=replace(experiment.data, side=(96, 200)))
    own = objects(experiment, variables, evaluator(experiment), chosen=(0, 1))
    for (_, _, truth), (number, wanted, same) in zip(
        own, objects(resized, variables, evaluator(resized), chosen=(0, 1)), strict=True
    ):
        for name in ("boxes", "areas", "size"):
            np.testing.assert_allclose(same[name], truth[name], rtol=1e-5)
        image = resized.data.source("val")[number]["image"]
        found = find(
            experiment.model, variables, image, task=experiment.task, side=resized.data.side
        )
        np.testing.assert_allclose(
            found["boxes"], wanted["boxes"][wanted["valid"]], rtol=1e-3, atol=1e-3
        )
        assert 48 < found["boxes"].max() <= 64


@pytest.mark.parametrize("task", [encdec.Segment(7), encdec.Detect(3), encdec.Propose()])
def test_a_task_that_is_not_the_models_is_refused(given, task):
    experiment, variables = given
    with pytest.raises(InputError, match="the task of the model's head is wanted"):
        find(experiment.model, variables, image(64, 64), task=task)


def test_what_is_no_image_is_refused(given):
    experiment, variables = given
    with pytest.raises(InputError):
        find(experiment.model, variables, image(4, 4), task=experiment.task, shrink=0)
