import numpy as np
import pytest
from PIL import Image

from encdec.data.datasets import Folder
from encdec.evaluate import evaluator
from encdec.predict import predict
from encdec.samples import file_name, ranked, samples, spread
from encdec.train.loop import first_state


@pytest.mark.parametrize(
    "number, wanted", [(0, ()), (1, (0,)), (3, (0, 2, 4)), (9, tuple(range(5)))]
)
def test_some_are_spread_over_all(number, wanted):
    assert spread(number, 5) == wanted


def test_the_worst_the_median_and_the_best_come_in_this_order():
    images = {7: 0.9, 1: 0.1, 2: 0.2, 3: 0.5, 4: 0.6, 5: 0.7, 6: 0.8}
    assert list(ranked(images)) == [1, 2, 3, 4, 7, 6]
    assert [*ranked(images).values()] == ["worst"] * 2 + ["median"] * 2 + ["best"] * 2
    assert list(ranked(images, each=1).items()) == [(1, "worst"), (4, "median"), (7, "best")]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_of_few_images_each_is_shown_once(count):
    assert sorted(ranked(dict.fromkeys(range(count), 0.5))) == list(range(count))


def test_samples_are_the_examples_that_are_chosen(tiny):
    variables, source = first_state(tiny()).variables(), tiny().data.source("val")
    found = samples(tiny(), variables, evaluator(tiny()), (4, 1), name="net")
    assert [sample["number"] for sample in found] == [4, 1]
    for sample in found:
        example = source[sample["number"]]
        np.testing.assert_array_equal(sample["image"], example["image"])
        np.testing.assert_array_equal(sample["label"], example["label"])
        label, guess = sample["label"], sample["predictions"]["net"]
        assert guess.shape == label.shape and guess.dtype == np.uint8 and guess.max() < 8


def test_samples_are_turned_as_the_run_is_scored(tiny):
    one, variables = tiny(tta=("flip",)), first_state(tiny()).variables()
    (turned,) = samples(one, variables, evaluator(one), (4,), name="net")
    (plain,) = samples(tiny(), variables, evaluator(tiny()), (4,), name="net")
    wanted = predict(one.model, variables, turned["image"], tta=("flip",))
    np.testing.assert_array_equal(turned["predictions"]["net"], wanted)
    assert (turned["predictions"]["net"] != plain["predictions"]["net"]).any()


def test_a_sample_is_called_as_its_file_if_it_is_one(tmp_path, tiny):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "a b.png")
    assert file_name(Folder(tmp_path).source("all"), 0) == "a b.png"
    assert file_name(tiny().data.source("val"), 0) == ""


def test_so_are_those_of_objects(detector):
    one = detector("retinanet")
    found = samples(one, first_state(one).variables(), evaluator(one), (3, 0))
    assert [sample["number"] for sample in found] == [3, 0]
    assert all({"boxes", "classes"} <= set(sample["truth"]) for sample in found)
