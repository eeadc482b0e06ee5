"""Random scenes, and what pycocotools says of them: `python -m tests.oracles.coco` stores it."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from encdec import coco_results

FILE = Path(__file__).with_name("coco.json")
CLASSES, SIZE = 3, (240, 320)
CATEGORIES = (2, 7, 11)
NAMES = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l", "ar1", "ar10", "ar100", "ar_s", "ar_m")
NAMES += ("ar_l",)
STORED = range(12)


def scene(seed: int) -> dict[int, tuple[dict, dict]]:
    """(detections, true objects) by image: crowds, given areas, equal scores, images with nothing.

    Boxes have whole corners in some scenes, so that overlaps tie and meet thresholds exactly.
    """
    rng = np.random.default_rng(seed)
    whole, images = rng.random() < 0.4, {}
    for image in range(1, rng.integers(2, 8)):
        count = 0 if rng.random() < 0.15 else int(rng.integers(1, 9))
        boxes = _boxes(rng, count)
        truth = {
            "boxes": boxes,
            "classes": rng.integers(CLASSES, size=count).astype(np.int32),
            "crowd": rng.random(count) < 0.15,
        }
        near = np.repeat(boxes, int(rng.integers(1, 5)), axis=0)
        side = (near[:, 2:] - near[:, :2]).mean(1, keepdims=True)
        near = near + rng.normal(0, 0.1, near.shape).astype(np.float32) * side
        kinds = np.repeat(truth["classes"], len(near) // max(count, 1))
        wrong = rng.random(len(near)) < 0.1
        kinds = np.where(wrong, rng.integers(CLASSES, size=len(near)), kinds)
        far = 0 if rng.random() < 0.1 else int(rng.integers(0, 130 if rng.random() < 0.1 else 9))
        boxes = np.concatenate([near, _boxes(rng, far)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        scores = rng.random(len(boxes)).astype(np.float32)
        found = {
            "boxes": boxes.astype(np.float32),
            "scores": scores.round(1) if whole else scores,
            "classes": np.append(kinds, rng.integers(CLASSES, size=far)).astype(np.int32),
        }
        for objects in (found, truth) if whole else ():
            objects["boxes"] = (objects["boxes"] / 4).round() * 4
        if rng.random() < 0.5:
            area = np.prod(truth["boxes"][:, 2:] - truth["boxes"][:, :2], axis=1)
            truth["areas"] = (area * rng.uniform(0.4, 1, count)).astype(np.float32)
        images[image] = (found, truth)
    return images


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of 6 to 200 pixels, within `SIZE`."""
    sides = np.minimum(np.exp(rng.uniform(np.log(6), np.log(200), (count, 2))), SIZE)
    corner = rng.random((count, 2)) * (np.array(SIZE) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def outlined(images: dict[int, tuple[dict, dict]]) -> dict[int, tuple[dict, dict]]:
    """The same with masks: the ellipses in the boxes, a few of them empty."""
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    for objects in (o for pair in images.values() for o in pair):
        masks = np.zeros((len(objects["boxes"]), *SIZE), bool)
        for mask, (y0, x0, y1, x1) in zip(masks, objects["boxes"], strict=True):
            if y1 > y0 and x1 > x0:
                down, across = (2 * y - y0 - y1) / (y1 - y0), (2 * x - x0 - x1) / (x1 - x0)
                mask[:] = down**2 + across**2 < 1
        objects["masks"] = masks
    return images


def judged(images: dict[int, tuple[dict, dict]], by: str = "boxes", most: int = 0) -> list[float]:
    """pycocotools's twelve numbers, -1 where nothing counts; class-agnostic at `most` if given."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = coco_results.truth(
        {i: t for i, (_, t) in images.items()},
        dict.fromkeys(images, SIZE),
        tuple("abc"),
        CATEGORIES,
    )
    entries = [
        e for i, (f, _) in images.items() for e in coco_results.results(f, i, CATEGORIES, by)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco, nothing = COCO(), COCO()  # it cannot load results without a detection
        coco.dataset = json.loads(json.dumps(truth))
        nothing.dataset = coco.dataset | {"annotations": []}
        coco.createIndex()
        nothing.createIndex()
        found = coco.loadRes(entries) if entries else nothing
        judge = COCOeval(coco, found, "bbox" if by == "boxes" else "segm")
        if most:
            judge.params.useCats, judge.params.maxDets = 0, [1, 10, most]
        judge.evaluate()
        judge.accumulate()
        if most:  # its summary knows 100 detections only
            recall = judge.eval["recall"][:, 0, :, -1].mean(0)
            return [float(v) for v in recall]
        judge.summarize()
    return [float(v) for v in judge.stats]


def main() -> None:
    stored = {}
    for seed in STORED:
        stored[f"boxes/{seed}"] = judged(scene(seed))
        stored[f"masks/{seed}"] = judged(outlined(scene(seed)), "masks")  # the test takes some
        stored[f"proposals/{seed}"] = judged(scene(seed), most=1000)
    FILE.write_text(json.dumps(stored, indent=0))


if __name__ == "__main__":
    main()
