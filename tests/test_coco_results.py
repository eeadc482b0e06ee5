import json

import numpy as np
import pytest

from encdec import coco_results
from encdec.average_precision import measure
from encdec.errors import InputError
from tests.oracles import coco


def detections(**more):
    return {
        "boxes": np.array([[10, 20, 30, 60], [1.5, 2.25, 3, 4], [0, 0, 0, 0]], np.float32),
        "scores": np.array([0.75, 0.5, 0.0], np.float32),
        "classes": np.array([1, 0, 0], np.int32),
        "valid": np.array([True, True, False]),
    } | more


def test_a_result_has_ids_and_a_box_of_corner_and_sides():
    assert coco_results.results(detections(), 42, (1, 18)) == [
        {"image_id": 42, "category_id": 18, "bbox": [20.0, 10.0, 40.0, 20.0], "score": 0.75},
        {"image_id": 42, "category_id": 1, "bbox": [2.25, 1.5, 1.75, 1.5], "score": 0.5},
    ]


@pytest.mark.parametrize("by", ["boxes", "masks"])
def test_what_is_written_is_read_back(tmp_path, by):
    masks = np.zeros((3, 40, 70), bool)
    masks[0, 10:30, 20:60], masks[1, 2, 3] = True, True
    file = tmp_path / "results.json"
    coco_results.write(file, coco_results.results(detections(masks=masks), 7, (1, 18), by))
    (back,) = coco_results.found(coco_results.read(file), (1, 18)).values()
    assert back["classes"].tolist() == [1, 0] and back["scores"].tolist() == [0.75, 0.5]
    expected = {"boxes": detections()["boxes"][:2], "masks": masks[:2]}
    np.testing.assert_array_equal(back[by], expected[by])
    if by == "masks":
        assert back["boxes"].tolist() == [[10, 20, 30, 60], [2, 3, 3, 4]]


def test_found_detections_are_measured_as_before():
    for image, (found, truth) in coco.scene(3).items():
        entries = coco_results.results(found, image, coco.CATEGORIES)
        back = coco_results.found(entries, coco.CATEGORIES).get(image, found)
        np.testing.assert_equal(measure(back, truth), measure(found, truth))


def test_the_truth_is_an_annotation_file():
    objects = {
        "boxes": np.array([[0, 0, 2, 4], [0, 0, 9, 9], [1, 1, 3, 3]], np.float32),
        "classes": np.array([0, 0, 1], np.int32),
        "crowd": np.array([False, False, True]),
        "box_mask": np.array([True, False, True]),
    }
    written = coco_results.truth({5: objects}, {5: (8, 9), 6: (4, 4)}, ("cat", "dog"), (3, 4))
    assert json.loads(json.dumps(written)) == {
        "images": [{"id": 5, "height": 8, "width": 9}, {"id": 6, "height": 4, "width": 4}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"image_id": 5, "category_id": 3, "bbox": [0, 0, 4, 2], "id": 1, "area": 8}
            | {"iscrowd": 0},
            {"image_id": 5, "category_id": 4, "bbox": [1, 1, 2, 2], "id": 2, "area": 4}
            | {"iscrowd": 1},
        ],
    }


def test_the_area_of_a_true_mask_is_its_pixels():
    masks = np.zeros((1, 6, 6), bool)
    masks[0, :2, :3] = True
    objects = {
        "boxes": np.array([[0, 0, 2, 3]], np.float32),
        "classes": np.array([0]),
        "masks": masks,
    }
    (entry,) = coco_results.truth({1: objects}, {1: (6, 6)}, ("a",), (1,))["annotations"]
    assert entry["area"] == 6 and entry["segmentation"]["size"] == [6, 6]


def test_a_mask_may_be_empty_and_its_counts_plain_numbers():
    entry = {"image_id": 1, "category_id": 1, "score": 0.5}
    entry["segmentation"] = {"size": [2, 3], "counts": [6]}
    assert coco_results.found([entry], (1,))[1]["boxes"].tolist() == [[0, 0, 0, 0]]


def test_a_class_without_id_and_masks_that_lack_are_clear_lines():
    with pytest.raises(InputError, match="classes of objects are 0 to 0.*got 1"):
        coco_results.results(detections(), 1, (1,))
    with pytest.raises(InputError, match="results by masks need them; got boxes, classes"):
        coco_results.results(detections(), 1, (1, 2), "masks")


@pytest.mark.parametrize(
    "entry",
    [
        {"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 1},
        {"image_id": 1, "category_id": 1, "score": 1},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]},
    ],
)
def test_an_entry_that_is_no_result_is_one_clear_line(entry):
    with pytest.raises(InputError, match="a result has image_id.*at place 0"):
        coco_results.found([entry], (1,))


@pytest.mark.parametrize("text", ['{"annotations": []}', "[1]", "["])
def test_a_file_that_holds_no_results_is_one_clear_line(tmp_path, text):
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(InputError, match="results are a JSON"):
        coco_results.read(file)
    with pytest.raises(InputError, match="results are a JSON file"):
        coco_results.read(tmp_path / "none.json")
