"""Oracle 12 of the FPN sheet, rules one by one, and pycocotools's numbers on random scenes."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from encdec import average_precision
from encdec.average_precision import FALSE, HIT, NEITHER, measure, merge, scores
from encdec.errors import InputError
from tests.oracles import coco


def objects(boxes, classes=None, **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(boxes)) if classes is None else np.array(classes)
    more = {key: np.array(value) for key, value in more.items()}
    return {"boxes": boxes, "classes": classes.astype(np.int32)} | more


def outcomes(found, truth, area=0, at=0, **how):
    """HIT, FALSE or NEITHER of each detection, by falling score."""
    return measure(found, truth, **how)["outcome"][:, area, at].tolist()


def shifted(iou: float) -> list[float]:
    """A box 100 pixels wide moved along x so far that it overlaps (0, 0, 100, 100) by `iou`."""
    shift = 100 * (1 - iou) / (1 + iou)
    return [0, shift, 100, 100 + shift]


SQUARE = [0, 0, 100, 100]


def test_perfect_detections_have_precision_and_recall_one():
    truth = objects([SQUARE, [10, 200, 30, 240], [0, 0, 40, 50]], [0, 1, 1])
    found = truth | {"scores": np.array([0.9, 0.2, 0.5])}
    got = scores([measure(found, truth)], 2)
    assert {v for v in got.values() if not np.isnan(v)} >= {1.0}
    assert [got[k] for k in ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")] == [1] * 6
    assert got["ar1"] == 0.75 and got["ar10"] == 1  # one object of two of class 1 by one detection


def test_shifted_detections_have_the_recall_of_the_thresholds_below():
    got = scores([measure(objects([shifted(0.72)], scores=[1.0]), objects([SQUARE]))], 1)
    assert got["ar100"] == 0.5 and got["ap"] == 0.5 and got["ap50"] == 1 and got["ap75"] == 0


def test_precision_is_the_highest_at_that_recall_or_above():
    truth = objects([SQUARE, [0, 200, 100, 300]])
    away = [300, 300, 400, 400]
    found = objects([SQUARE, away, [0, 200, 100, 300]], scores=[0.9, 0.8, 0.7])
    got = scores([measure(found, truth)], 1)
    assert got["ap50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)  # recall 0 … 0.5, then to 1


def test_f1_of_one_image_counts_what_is_false_of_any_class():
    truth = objects([SQUARE, [0, 200, 100, 300]], [0, 0])
    found = objects([SQUARE, SQUARE, [0, 200, 100, 300]], [0, 1, 0], scores=[0.9, 0.8, 0.4])
    assert average_precision.f1(measure(found, truth)) == 2 / (2 + 1 + 1)
    assert average_precision.f1(measure(found, truth), 0.3) == 4 / (4 + 1)
    nothing = measure(objects([], scores=[]), objects([]))
    assert np.isnan(average_precision.f1(nothing))


def test_an_object_is_found_once():
    found = objects([SQUARE, SQUARE], scores=[0.5, 0.9])
    assert outcomes(found, objects([SQUARE])) == [HIT, FALSE]


def test_each_detection_takes_the_best_of_the_free_objects():
    truth = objects([shifted(0.6), shifted(0.9)])
    assert outcomes(objects([SQUARE] * 2, scores=[0.9, 0.8]), truth, at=0) == [HIT, HIT]
    assert outcomes(objects([SQUARE] * 2, scores=[0.9, 0.8]), truth, at=6) == [HIT, FALSE]


def test_the_iou_may_be_just_the_threshold():
    half = objects([[0, 0, 50, 100]], scores=[1.0])
    assert outcomes(half, objects([SQUARE]), at=0) == [HIT]
    assert outcomes(half, objects([SQUARE]), at=1) == [FALSE]


def test_another_class_is_another_object_unless_proposals_are_measured():
    found, truth = objects([SQUARE], [1], scores=[1.0]), objects([SQUARE], [0])
    assert outcomes(found, truth) == [FALSE]
    assert outcomes(found, truth, agnostic=True) == [HIT]


def test_detections_in_a_crowd_are_neither_hit_nor_false():
    inside = [[0, 0, 20, 20], [40, 40, 70, 70], SQUARE]
    truth = objects([SQUARE], crowd=[True])
    found = objects(inside, scores=[0.9, 0.8, 0.7])
    assert outcomes(found, truth) == [NEITHER] * 3
    assert np.isnan(scores([measure(found, truth)], 1)["ap"])


def test_an_object_is_preferred_to_the_crowd_around_it():
    truth = objects([SQUARE, [0, 0, 200, 200]], crowd=[False, True])
    found = objects([shifted(0.6)], scores=[1.0])
    assert outcomes(found, truth) == [HIT]
    assert outcomes(found, truth, at=5) == [NEITHER]


def test_objects_outside_the_range_of_areas_count_nowhere():
    small, large = 1, 3
    truth = objects([SQUARE])
    assert outcomes(objects([SQUARE], scores=[1.0]), truth, area=small) == [NEITHER]
    assert outcomes(objects([[500, 500, 600, 600]], scores=[1.0]), truth, area=small) == [NEITHER]
    assert outcomes(objects([[500, 500, 510, 510]], scores=[1.0]), truth, area=small) == [FALSE]
    assert outcomes(objects([SQUARE], scores=[1.0]), truth, area=large) == [HIT]


def test_the_area_of_an_object_may_be_given():
    record = measure(objects([], scores=[]), objects([SQUARE], areas=[1024.0]))
    assert record["counted"].tolist() == [[True, True, True, False]]  # 32² is in both ranges


def test_a_padded_batch_row_is_the_objects_alone():
    plain = measure(objects([SQUARE], scores=[0.5]), objects([SQUARE]))
    found = objects([SQUARE, [0, 0, 0, 0]], scores=[0.5, 0.0], valid=[True, False])
    padded = measure(found, objects([SQUARE, [0, 0, 0, 0]], box_mask=[True, False]))
    assert {k: v.tolist() for k, v in plain.items()} == {k: v.tolist() for k, v in padded.items()}


def test_the_number_of_detections_is_of_each_image_and_class():
    found = objects([[300, 0, 400, 100], SQUARE, SQUARE], [0, 1, 0], scores=[0.9, 0.8, 0.7])
    got = scores([measure(found, objects([SQUARE, SQUARE], [0, 1]))], 2)
    assert got["ar1"] == 0.5 and got["ar10"] == 1


def test_images_without_objects_add_only_their_false_detections():
    truth, nothing = objects([SQUARE]), objects([])
    hit = measure(objects([SQUARE], scores=[0.5]), truth)
    false = measure(objects([SQUARE], scores=[0.9]), nothing)
    empty = measure(objects([], scores=[]), nothing)
    assert scores([hit, empty], 1)["ap"] == 1
    assert scores([hit, false, empty], 1)["ap"] == 0.5
    assert np.isnan(scores([false, empty], 1)["ap"]) and np.isnan(scores([empty], 1)["ar_s"])


def test_records_may_be_merged_in_parts():
    images = list(coco.scene(0).values())
    records = [measure(*image) for image in images]
    parts = [merge(records[:2]), merge(records[2:])]
    np.testing.assert_equal(scores(parts, coco.CLASSES), scores(records, coco.CLASSES))


def test_masks_that_lack_are_a_clear_line():
    with pytest.raises(InputError, match="objects measured by masks have masks; got"):
        measure(objects([SQUARE], scores=[1.0]), objects([SQUARE]), by="masks")


def test_a_class_beyond_the_count_and_no_record_are_clear_lines():
    with pytest.raises(InputError, match="classes of objects are 0 to 1; got 2"):
        scores([measure(objects([], scores=[]), objects([SQUARE], [2]))], 2)
    with pytest.raises(InputError, match="got none"):
        scores([], 2)


def ours(images, by="boxes", most=0) -> list[float]:
    """The numbers of `coco.judged`, in its order and with its -1."""
    records = [measure(*image, by=by, agnostic=most > 0) for image in images.values()]
    got = scores(records, 1 if most else coco.CLASSES, most or 100)
    names = (f"ar{most}", "ar_s", "ar_m", "ar_l") if most else coco.NAMES
    return [-1.0 if np.isnan(got[name]) else got[name] for name in names]


HOW = {"boxes": {}, "masks": {"by": "masks"}, "proposals": {"most": 1000}}


def scene(seed: int, how: str):
    return coco.outlined(coco.scene(seed)) if how == "masks" else coco.scene(seed)


@pytest.mark.parametrize("how", HOW)
def test_stored_numbers_of_pycocotools_are_ours(how):
    stored = json.loads(coco.FILE.read_text())
    for seed in coco.STORED[:4] if how == "masks" else coco.STORED:  # masks cost more
        got = ours(scene(seed, how), **HOW[how])
        np.testing.assert_allclose(got, stored[f"{how}/{seed}"], atol=1e-9)


@pytest.mark.paper(
    "FPN §5.1",
    says="COCO's average recall AR100 and AR1k, AR_s, AR_m and AR_l; §5.2: AP, AP at 0.5",
    does="pycocotools's numbers on 200 random scenes, by boxes, by masks and for proposals",
    differs="",
)
@pytest.mark.slow
@pytest.mark.skipif(not find_spec("pycocotools"), reason="pycocotools is not installed")
@pytest.mark.parametrize("how", HOW)
def test_two_hundred_random_scenes_are_scored_as_by_pycocotools(how):
    for seed in range(200):
        images = scene(seed, how)
        expected = coco.judged(images, **HOW[how])
        np.testing.assert_allclose(ours(images, **HOW[how]), expected, atol=1e-6, err_msg=str(seed))


def test_a_brute_force_matching_agrees():
    """Each range and threshold alone, objects looked at one by one."""
    for seed in range(3):
        for found, truth in coco.scene(seed).values():
            record = measure(found, truth)
            for a, (low, high) in enumerate(average_precision.AREAS.values()):
                for t, least in enumerate(average_precision.OVERLAPS):
                    expected = one_by_one(found, truth, low, high, least)
                    assert record["outcome"][:, a, t].tolist() == expected


def one_by_one(found, truth, low, high, least) -> list[int]:
    taken, outcome = set(), []
    area = [float(np.prod(b[2:].astype(float) - b[:2])) for b in truth["boxes"]]
    given = truth.get("areas", area)
    for i in np.argsort(-found["scores"], kind="stable"):
        box = found["boxes"][i].astype(float)
        own = float(np.prod(box[2:] - box[:2]))
        choices = []
        for j, other in enumerate(truth["boxes"].astype(float)):
            sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
            both = float(np.prod(sides)) if (sides > 0).all() else 0.0
            iou = both / (own if truth["crowd"][j] else own + area[j] - both) if both else 0.0
            same = truth["classes"][j] == found["classes"][i]
            if same and j not in taken and iou >= least:
                counts = not truth["crowd"][j] and low <= given[j] <= high
                choices.append((counts, iou, j))
        if not choices:
            outcome.append(FALSE if low <= own <= high else NEITHER)
            continue
        counts, _, j = max(choices)
        outcome.append(HIT if counts else NEITHER)
        if not truth["crowd"][j]:
            taken.add(j)
    return outcome
