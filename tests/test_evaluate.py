"""A whole split, exactly, whatever the batch and the devices."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import encdec
from encdec import metrics
from encdec.data.datasets import Folder
from encdec.errors import InputError
from encdec.evaluate import Seen, evaluate, evaluator
from encdec.predict import predict
from encdec.train.loop import first_state

SIZES = ((30, 40), (64, 33), (32, 32), (20, 64), (31, 31))


@pytest.fixture(scope="module")
def variables(tiny):
    return first_state(tiny()).variables()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images of four padded sizes, with ignored pixels."""
    root, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        ids = rng.integers(0, 8, size).astype(np.uint8)
        ids[0] = 255
        for kind, array in (
            ("images", rng.integers(0, 255, (*size, 3)).astype(np.uint8)),
            ("masks", ids),
        ):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{i}.png")
    return Folder(root, names=tuple("abcdefgh"), split="all")


@pytest.fixture
def sums(monkeypatch):
    """Evaluates and returns the added-up sums."""

    def measured(experiment, variables):
        seen = []
        monkeypatch.setattr(encdec.Segment, "scores", lambda task, sums: seen.append(sums) or {})
        evaluate(experiment, variables, evaluator(experiment))
        return seen[0]

    return measured


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == np.int64
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("change", [{"batch": 8}, {"batch": 12}, {"driver": "pmap"}])
def test_sums_do_not_depend_on_batch_or_driver(change, tiny, variables, sums):
    wanted = sums(tiny(batch=4), variables)  # five images: 4 and 1
    assert wanted["confusion"].sum() == 5 * 32 * 32
    assert_equal(sums(tiny(**change), variables), wanted)


def test_images_of_many_sizes_count_once_each(tiny, variables, folder, sums):
    wanted = sum((rows - 1) * columns for rows, columns in SIZES)
    small, large = (sums(tiny(data=folder, batch=n), variables) for n in (4, 8))
    assert small["confusion"].sum() == wanted
    assert_equal(small, large)


def test_the_split_that_is_asked_for_is_scored(tiny, variables, sums):
    data = dataclasses.replace(tiny().data, split="test")
    assert sums(tiny(data=data), variables)["confusion"].sum() == 2 * 32 * 32


def test_evaluation_changes_no_variable(tiny, variables):
    scores = evaluate(tiny(), variables, evaluator(tiny()))
    assert scores == evaluate(tiny(), variables, evaluator(tiny()))
    assert 0 <= scores["mean_iou"] <= scores["pixel_accuracy"] <= 1


@pytest.mark.parametrize("change", [{}, {"batch": 8}, {"driver": "pmap"}])
def test_what_is_seen_of_each_image_is_its_own_mean_iou(change, tiny, variables, folder):
    experiment = tiny(data=folder, **change)
    seen, step = Seen(), evaluator(experiment)
    evaluate(experiment, variables, step, None, seen)
    assert list(seen.images) == list(range(len(SIZES)))
    for i, size in enumerate(SIZES):
        found = predict(experiment.model, variables, folder.source("all")[i]["image"])
        sums = confusion_matrix(folder.source("all")[i]["label"], found)
        assert seen.images[i] == pytest.approx(metrics.scores({"confusion": sums})["mean_iou"])
        assert sums.sum() == (size[0] - 1) * size[1]
    assert seen.confusion.shape == (8, 8)
    assert seen.confusion.sum() == sum((rows - 1) * columns for rows, columns in SIZES)


def confusion_matrix(label, found):
    sums = np.zeros((8, 8), np.int64)
    np.add.at(sums, (label[label != 255], found[label != 255]), 1)
    return sums


def test_resized_images_are_scored_at_the_files_own_size(tiny, variables, sums):
    """As `predict` at that scale gives them."""
    experiment = tiny(data=dataclasses.replace(tiny().data, side=(48, 99)))
    found = sums(experiment, variables)["confusion"]
    total = np.zeros((8, 8), np.int64)
    source = experiment.data.source("val")
    for example in (source[i] for i in range(len(source))):
        labels = predict(experiment.model, variables, example["image"], scales=(1.5,))
        total += confusion_matrix(example["label"], labels)
    np.testing.assert_array_equal(found, total)


def test_turned_images_are_scored_as_predict_gives_them(tiny, variables, sums):
    turns = ("flip", "rotate90")
    experiment = tiny(tta=turns)
    found = sums(experiment, variables)["confusion"]
    total, plain = np.zeros((8, 8), np.int64), np.zeros((8, 8), np.int64)
    source = experiment.data.source("val")
    for example in (source[i] for i in range(len(source))):
        turned = predict(experiment.model, variables, example["image"], tta=turns)
        total += confusion_matrix(example["label"], turned)
        whole = predict(experiment.model, variables, example["image"])
        plain += confusion_matrix(example["label"], whole)
    np.testing.assert_array_equal(found, total)
    assert (total != plain).any()


def test_objects_are_not_turned(detector):
    with pytest.raises(InputError, match="a detector .*leave --tta out; got flip"):
        detector("retinanet", tta=("flip",))


def test_of_objects_the_f1_of_each_image_is_seen(detector):
    one = detector("retinanet")
    seen = Seen()
    evaluate(one, first_state(one).variables(), evaluator(one), None, seen)
    assert seen.confusion is None and seen.images
    assert all(0 <= score <= 1 for score in seen.images.values())
