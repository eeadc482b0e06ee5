import numpy as np
import pytest

from encdec.data.synthetic import CLASSES, draw


def test_scene_follows_from_seed_and_index():
    one, same, other = draw(3, 5, 64), draw(3, 5, 64), draw(3, 6, 64)
    for key in one:
        np.testing.assert_array_equal(one[key], same[key])
    assert (one["image"] != other["image"]).any()


@pytest.mark.parametrize("size", [16, 33, 128])
def test_arrays_have_the_form_of_an_example(size):
    scene = draw(0, 1, size)
    n = len(scene["classes"])
    form = {key: (array.shape, array.dtype.name) for key, array in scene.items()}
    assert form == {
        "image": ((size, size, 3), "uint8"),
        "label": ((size, size), "uint8"),
        "instances": ((size, size), "int32"),
        "boxes": ((n, 4), "float32"),
        "classes": ((n,), "int32"),
    }


@pytest.mark.parametrize("index", range(8))
def test_boxes_bound_the_visible_part_of_each_instance(index):
    scene = draw(0, index, 96)
    assert set(np.unique(scene["instances"])) - {0} == set(range(1, len(scene["boxes"]) + 1))
    for i, (box, kind) in enumerate(zip(scene["boxes"], scene["classes"], strict=True), start=1):
        rows, cols = np.nonzero(scene["instances"] == i)
        assert box.tolist() == [rows.min(), cols.min(), rows.max() + 1, cols.max() + 1]
        assert set(scene["label"][rows, cols]) == {kind}
    np.testing.assert_array_equal(scene["label"] > 0, scene["instances"] > 0)


def test_every_class_occurs_and_some_scenes_are_empty():
    scenes = [draw(0, i, 64) for i in range(40)]
    assert {int(c) for s in scenes for c in s["classes"]} == set(range(1, len(CLASSES)))
    assert min(len(s["classes"]) for s in scenes) == 0
