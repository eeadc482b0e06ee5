"""A whole split, exactly, whatever the batch and the devices."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import encdec
from encdec.data.datasets import Folder
from encdec.evaluate import evaluate, evaluator, samples
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


@pytest.mark.parametrize("number, wanted", [(1, [0]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_samples_are_spread_over_the_split(number, wanted, tiny, variables):
    found, source = samples(tiny(), variables, number), tiny().data.source("val")
    assert len(found) == len(wanted)
    for (image, label, guess), i in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(image, source[i]["image"])
        np.testing.assert_array_equal(label, source[i]["label"])
        assert guess.shape == label.shape and guess.dtype == np.uint8 and guess.max() < 8
