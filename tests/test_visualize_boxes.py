import numpy as np
import pytest

from encdec import visualize
from encdec import visualize_boxes as boxes
from encdec.errors import InputError

CLASSES = ("cat", "dog", "bird")
GROUND = np.full((40, 60, 3), 120, np.uint8)


def objects(places, classes, **more):
    more = {key: np.array(value) for key, value in more.items()}
    places = np.array(places, np.float32).reshape(-1, 4)
    return {"boxes": places, "classes": np.array(classes, np.int32)} | more


def shades(picture):
    return {tuple(c) for c in picture.reshape(-1, 3).tolist()}


def test_colours_are_those_of_label_maps_after_background():
    expected = [tuple(c) for c in visualize.palette(4)[1:].tolist()]
    assert list(boxes.colours(CLASSES).items()) == list(zip(CLASSES, expected, strict=True))


def test_a_box_is_a_frame_of_its_classs_colour_at_the_pictures_scale():
    picture = boxes.draw(GROUND, objects([[20, 10, 36, 50]], [1]), CLASSES, width=240)
    colour = boxes.colours(CLASSES)["dog"]
    assert picture.shape == (160, 240, 3)
    rows, columns = np.nonzero((picture == colour).all(-1)[80:])
    assert (columns.min(), columns.max(), rows.max() + 80) == (40, 199, 143)
    assert (picture[100, 100] == 120).all(), "the inside is free"
    assert (GROUND == 120).all(), "the image stays"


def test_masks_tint_their_pixels():
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 20:30, 10:20] = True
    found = objects([[0, 0, 40, 60]], [0], masks=mask)
    picture = boxes.draw(GROUND, found, CLASSES, width=60, alpha=0.5)
    mixed = np.round((120 + np.array(boxes.colours(CLASSES)["cat"])) / 2)
    np.testing.assert_array_equal(picture[25, 15], mixed)
    assert (picture[35, 15] == 120).all()


def test_low_scores_and_padding_are_left_out_and_crowds_are_grey():
    places, colours = [[5, 5, 20, 20], [5, 25, 20, 40], [25, 5, 38, 20]], boxes.colours(CLASSES)
    found = objects(places, [0, 1, 2], scores=[0.9, 0.3, 0.8], valid=[1, 1, 0])
    for threshold, names in ((0.5, {"cat"}), (0.3, {"cat", "dog"})):
        drawn = shades(boxes.draw(GROUND, found, CLASSES, width=180, threshold=threshold))
        assert {name for name in CLASSES if colours[name] in drawn} == names
    truth = objects(places[:2], [0, 1], crowd=[True, False], box_mask=[1, 0])
    drawn = shades(boxes.draw(GROUND, truth, CLASSES, width=180))
    assert visualize.GREY in drawn and not set(colours.values()) & drawn


def test_of_labels_at_one_place_the_better_is_written():
    one = objects([[20, 5, 38, 30]], [0], scores=[0.9])
    two = objects([[20, 5, 38, 30]] * 2, [1, 0], scores=[0.6, 0.9])
    pictures = [boxes.draw(GROUND, o, CLASSES) for o in (one, two)]
    np.testing.assert_array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("place", [(-9, -9, 300, 300), (7, 7, 7, 7), (39.9, 59.9, 40, 60)])
def test_any_box_can_be_drawn(place):
    assert boxes.draw(GROUND, objects([place], [2]), CLASSES, width=90).shape == (60, 90, 3)


def test_five_hundred_boxes_and_none_can_be_drawn():
    corners = np.random.default_rng(0).random((500, 2)) * 30
    many = objects(np.hstack([corners, corners + 8]), np.arange(500) % 3)
    assert boxes.draw(GROUND, many, CLASSES).shape == (600, 900, 3)
    blank = boxes.draw(GROUND, objects([], []), CLASSES, width=60)
    np.testing.assert_array_equal(blank, GROUND)


def test_a_sheet_has_truth_beside_each_models_objects_and_a_key_of_what_occurs():
    truth = objects([[5, 5, 20, 20]], [0])
    found = {"fpn": objects([[5, 5, 20, 20]], [2], scores=[0.9]), "ssd": objects([], [], scores=[])}
    sample = {"image": GROUND, "truth": truth, "predictions": found}
    sheet = boxes.sheet([sample, sample], CLASSES, width=600)
    colours = boxes.colours(CLASSES)
    drawn = shades(sheet)
    assert sheet.shape[1] == 600 and {colours["cat"], colours["bird"]} <= drawn
    assert colours["dog"] not in drawn


def test_what_is_false_and_what_is_missed_is_told():
    places = [[0, 0, 10, 10], [20, 20, 30, 30], [0, 30, 10, 40], [20, 0, 30, 10]]
    truth = objects(places, [0, 1, 2, 0], crowd=[0, 0, 0, 1])
    tried = [*places[:2], [12, 12, 18, 18], places[2], places[3]]
    found = objects(tried, [0, 0, 1, 2, 0], scores=[0.9, 0.8, 0.7, 0.4, 0.6])
    wrong, words = boxes.wrong(found, truth)
    # The second is of another class, the third hits nothing, the fourth is too sure of too little.
    assert words == "2 false, 2 missed"
    names = [tuple(boxes.WRONG)[kind] for kind in wrong["classes"]]
    pairs = sorted(zip(names, wrong["boxes"].tolist(), strict=True))
    assert pairs == sorted(
        [("false", places[1]), ("false", tried[2]), ("missed", places[1]), ("missed", places[2])]
    )
    drawn = shades(boxes.draw(GROUND, wrong, tuple(boxes.WRONG), shades=boxes.WRONG))
    assert set(boxes.WRONG.values()) <= drawn


def test_where_nothing_is_wrong_nothing_is_marked():
    none = objects([], [], scores=[])
    assert boxes.wrong(none, objects([], []))[1] == "0 false, 0 missed"


def test_wrong_input_is_one_clear_line():
    with pytest.raises(InputError, match="classes of objects are 0 to 2; got 3 to 3"):
        boxes.draw(GROUND, objects([[0, 0, 5, 5]], [3]), CLASSES)
    with pytest.raises(InputError, match="masks are as large as the image, 40x60; got 14x14"):
        small = np.ones((1, 14, 14), bool)
        boxes.draw(GROUND, objects([[0, 0, 5, 5]], [0], masks=small), CLASSES)
    with pytest.raises(InputError, match="a sheet has samples"):
        boxes.sheet([], CLASSES)
    with pytest.raises(InputError, match="one class at least"):
        boxes.colours(())
