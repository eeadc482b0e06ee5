"""Whole runs of detectors: resumed, on four devices, with few objects and with many."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from encdec.checkpoint import Checkpoints
from encdec.data.detection import ShapesDetection
from encdec.data.pipeline import train_batches
from encdec.errors import InputError
from encdec.evaluate import evaluate, evaluator, objects
from encdec.report import history
from encdec.train import loop
from encdec.train.loop import first_state, run, shapes_of_state, trainer, variables_of


@dataclasses.dataclass(frozen=True)
class Counted(ShapesDetection):
    """Scenes with so many boxes of 4 to 10 pixels."""

    counts: tuple[int, ...] = (0,)

    def source(self, split):
        return [scene(number, count) for number, count in enumerate(self.counts)]


def scene(number, count):
    rng = np.random.default_rng(number)
    corner = rng.integers(0, 50, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(4, 11, (count, 2))], 1)
    return {
        "image": rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
        "boxes": boxes.astype(np.float32),
        "classes": rng.integers(0, 7, count).astype(np.int32),
    }


def counted(*counts, **more):
    return Counted(counts=counts, **more)


def bits(folder, experiment):
    checkpoints = Checkpoints(folder / "checkpoints", keep=experiment.keep)
    state = checkpoints.restore(shapes_of_state(experiment))
    checkpoints.close()
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


def numbers(folder):
    timed = {"images_per_s", "memory_mib", "waiting"}
    return [{k: v for k, v in line.items() if k not in timed} for line in history(folder)]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    detector, detecting, tmp_path, monkeypatch
):
    """With a random sample of anchors and of regions, and masks."""
    experiment, read = detector("masks"), loop.train_batches

    def failing(*args, **settings):
        for number, batch in enumerate(read(*args, **settings)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_batches", failing)
        with pytest.raises(KeyboardInterrupt):
            run(experiment, tmp_path)
    run(experiment, tmp_path)
    assert [line["step"] for line in numbers(tmp_path)] == [1, 2, 3, 4, 4]
    assert numbers(tmp_path) == numbers(detecting)
    assert bits(tmp_path, experiment) == bits(detecting, experiment)


def test_the_folder_of_a_detector_holds_its_losses_and_scores(detecting):
    first, *_, last = history(detecting)
    assert {"rpn_class", "rpn_box", "class", "box", "mask"} < set(first)
    assert {"ap", "ap50", "mask_ap", "ar100"} <= set(last["val"])
    page = (detecting / "report.html").read_text()
    assert "AP at IoU 0.5 by class" in page and page.count("truth") >= 5


def test_four_devices_draw_what_one_draws(detector):
    """One program each, whether there are objects or not."""
    augment = dataclasses.replace(detector("rcnn").augment, scale=(1.0, 1.0))
    experiment = detector("rcnn", augment=augment)
    batches = train_batches(experiment.data, batch=4, seed=0, keys=experiment.task.keys)
    some = [next(batches) for _ in range(2)]
    some.insert(1, some[0] | {"box_mask": np.zeros_like(some[0]["box_mask"])})
    ends, said = [], []
    for driver in ("jit", "pmap"):
        step = trainer(dataclasses.replace(experiment, driver=driver))
        state = first_state(experiment)
        for batch in some:
            state, losses = step(state, batch, jax.random.key(0))
            said.append({name: float(loss) for name, loss in losses.items()})
        assert step.programs() == 1
        ends.append(state.params)
    half = len(some)
    for one, other in zip(said[:half], said[half:], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert said[1]["box"] == 0 < said[0]["box"]
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4)


def test_images_without_objects_train_and_are_scored(detector, tmp_path):
    experiment = detector("retinanet", data=counted(0, 0, 0, 0), steps=2)
    scores = run(experiment, tmp_path)
    assert all(np.isfinite(line["loss"]) for line in history(tmp_path) if "loss" in line)
    assert np.isnan(scores["ap"]) and np.isnan(scores["ap50/0"])
    some = dataclasses.replace(experiment, data=counted(0, 3, 0))
    scores = evaluate(some, variables_of(experiment, tmp_path), evaluator(some))
    assert 0 <= scores["ap"] <= 1


def test_one_to_five_hundred_boxes_an_image(detector, tmp_path):
    data = counted(1, 500, 7, 0, max_boxes=500)
    run(detector("retinanet", data=data, steps=2), tmp_path / "run")
    assert history(tmp_path / "run")[0]["box"] > 0
    few = dataclasses.replace(data, max_boxes=128)
    with pytest.raises(InputError, match="say --data.max-boxes 500 or more"):
        run(detector("retinanet", data=few, steps=2), tmp_path / "few")


def test_the_driver_and_the_batch_change_no_score(detector):
    experiment = detector("retinanet")
    variables = first_state(experiment).variables()
    scores = [
        evaluate(other, variables, evaluator(other))
        for other in (
            experiment,
            dataclasses.replace(experiment, batch=8),
            dataclasses.replace(experiment, driver="pmap"),
        )
    ]
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], nan_ok=True)


def test_objects_are_in_pixels_of_the_image_before_it_was_shrunk(detector):
    base = detector("masks")
    experiment = dataclasses.replace(base, data=dataclasses.replace(base.data, shrink=2))
    variables = first_state(base).variables()
    found = list(objects(experiment, variables, evaluator(experiment), chosen=(0, 3)))
    assert [number for number, _, _ in found] == [0, 3]
    source = base.data.source("val")
    for number, guess, truth in found:
        real = truth["box_mask"]
        np.testing.assert_allclose(truth["boxes"][real], source[number]["boxes"], atol=1e-4)
        assert truth["masks"][real].shape[1:] == guess["masks"].shape[1:] == (64, 64)
        assert guess["boxes"].max() > 40


def test_evaluate_names_the_classes_of_a_detector(detecting, call):
    code, out, _ = call("evaluate", "--run", detecting, "--data.split", "test")
    line = json.loads(out.splitlines()[-1], parse_constant=pytest.fail)
    assert code == 0 and {"ap", "ap50", "mask_ap", "ap50/disc", "mask_ap/disc"} <= set(line)
    assert not any(name.rpartition("/")[2].isdigit() for name in line)


def test_evaluate_of_proposals_speaks_of_objects(detector, tmp_path, call):
    run(detector("rpn", steps=1), tmp_path)
    code, out, _ = call("evaluate", "--run", tmp_path)
    line = json.loads(out.splitlines()[-1])
    assert code == 0 and {"ar100", "ap/object"} <= set(line) and "ap/disc" not in line
    assert "disc" not in (tmp_path / "report.html").read_text()


def test_predict_writes_objects_and_overlays(detecting, tmp_path, call):
    for i, size in enumerate(((40, 61), (64, 64), (33, 50))):
        image = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    code, said, err = call(
        "predict", *sorted(tmp_path.glob("*.png")), "--run", detecting, "--out", out
    )
    assert code == 0 and "images: 3; programs compiled: " in err.splitlines()[-1]
    files = [out / name for name in ("detections.json", "masks.json")]
    assert said.split()[-2:] == [str(file) for file in files]
    entries, masks = (json.loads(file.read_text()) for file in files)
    assert {entry["file_name"] for entry in entries} <= {"0.png", "1.png", "2.png"}
    keys = {"image_id", "category_id", "category", "score", "file_name"}
    assert entries and all(set(entry) == {"bbox", *keys} for entry in entries)
    assert all(set(entry) == {"segmentation", *keys} for entry in masks)
    for entry, mask in zip(entries, masks, strict=True):
        rows, columns = mask["segmentation"]["size"]
        assert all(entry[key] == mask[key] for key in keys)
        x, y, w, h = entry["bbox"]
        assert 1 <= entry["category_id"] <= 7 and 0 <= entry["score"] <= 1
        assert x >= 0 and y >= 0 and x + w <= columns + 1e-3 and y + h <= rows + 1e-3
    assert np.array(Image.open(out / "0_overlay.png")).shape[2] == 3
