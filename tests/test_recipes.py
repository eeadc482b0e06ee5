"""The recipes at full size with the published settings: what they say, and that each one starts."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from encdec import weights
from encdec.data.border import Border
from encdec.encoders.resnet import resnet50
from encdec.experiment import check_classes
from encdec.flags import parse
from encdec.train.loop import shapes_of_state
from encdec.train.state import count
from tests.test_experiments import script, traced

FOLDER = Path(__file__).parents[1] / "experiments"
FCN = {"momentum": 0.99, "decay": 5e-4, "batch": 1, "size": (500, 500), "bias_rate": 2.0}
UNET = {"momentum": 0.99, "decay": 0.0, "batch": 1, "size": (572, 572)}
FPN = {"momentum": 0.9, "decay": 1e-4, "batch": 16, "size": (1344, 1344), "rate": 0.02}
FPN |= {"side": (800, 1333), "schedule": "steps"}
RECIPES = {
    "voc_fcn32s": FCN | {"parameters": 134_346_581, "rate": 1e-10, "steps": 100_000},
    "voc_fcn16s": FCN | {"parameters": 134_357_354, "rate": 1e-12, "steps": 100_000},
    "voc_fcn8s": FCN | {"parameters": 134_362_751, "rate": 1e-14, "steps": 100_000},
    "voc_fcn8s_at_once": FCN | {"parameters": 134_362_751, "rate": 1e-10, "steps": 300_000},
    "isbi_unet_paper": UNET
    | {"parameters": 31_030_658, "elastic": 10.0, "border": Border(10.0, 5.0)},
    "celltracking_unet_paper": UNET
    | {"parameters": 31_100_354, "elastic": 10.0, "border": Border(10.0, 5.0)},
    "coco_fpn_rpn": FPN | {"parameters": 27_446_351, "steps": 40_000, "drops": (0.75,)},
    "coco_fpn_faster_rcnn": FPN  # 14,310,805 in the head, and the proposer's
    | {"parameters": 26_852_416 + 14_310_805 + 27_446_351, "steps": 80_000, "drops": (0.75,)},
    "coco_semantic_fpn": FPN
    | {"parameters": 26_852_416 + 1_630_774, "steps": 90_000, "drops": (2 / 3, 8 / 9)},
}
PUBLISHED = {
    "voc_fcn32s": ("63.6",),
    "voc_fcn16s": ("65.0",),
    "voc_fcn8s": ("65.5",),
    "voc_fcn8s_at_once": ("65.4",),
    "isbi_unet_paper": ("0.000353", "0.0382", "0.0611"),
    "celltracking_unet_paper": ("0.9203", "0.7756"),
    "coco_fpn_rpn": ("44.0", "56.3", "44.9, 63.4, 66.2"),
    "coco_fpn_faster_rcnn": ("56.9", "33.9"),
    "coco_semantic_fpn": ("40.2",),
}


def load(name):
    return script(FOLDER / f"{name}.py")


@pytest.mark.paper(
    "U-Net §3",
    says="SGD of momentum 0.99, a batch of one tile",
    does="the same, 572x572 pixels: `experiments/isbi_unet_paper.py`, `celltracking_unet_paper.py`",
    differs="rate, schedule and steps are ours: the paper gives none; not run to the end here",
)
@pytest.mark.paper(
    "FPN §5",
    says="8 GPUs of 2 images, momentum 0.9, decay 1e-4, rate 0.02; 40,000 steps and 80,000",
    does="the same: `experiments/coco_fpn_rpn.py`, `coco_fpn_faster_rcnn.py`, features not shared",
    differs="ResNet-50 has its stride in the 3x3 convolutions; not run to the end here",
)
@pytest.mark.paper(
    "Panoptic FPN §4",
    says="COCO: Mask R-CNN's schedule of 90,000 steps, shorter side from 640 to 800",
    does="the same: `experiments/coco_semantic_fpn.py`, the semantic branch alone",
    differs="not run to the end here",
)
@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_are_the_published_ones(name):
    experiment = load(name).experiment()
    for field, wanted in RECIPES[name].items():
        if field == "parameters":
            assert count(shapes_of_state(experiment).params) == wanted
            continue
        parts = (experiment, experiment.optimizer, experiment.data, experiment.augment)
        assert next(getattr(part, field) for part in parts if hasattr(part, field)) == (
            pytest.approx(wanted) if isinstance(wanted, float) else wanted
        )
    assert experiment.optimizer.name == "sgd"


@pytest.mark.parametrize("name", RECIPES)
def test_the_docstring_has_the_published_number_and_that_it_was_not_reached(name):
    words = " ".join(load(name).__doc__.split())
    assert "Started for a few steps only; not run to its end here." in words
    assert all(number in words for number in ("Published", *PUBLISHED[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_flags_change_the_settings(name, call):
    experiment = load(name).experiment()
    flags = ["--data.root", "DIR", "--optimizer.rate", "0.5", "--batch", "3"]
    changed = parse(type(experiment), flags, default=experiment)
    assert (changed.data.root, changed.optimizer.rate, changed.batch) == (Path("DIR"), 0.5, 3)
    code, out, _ = call("--help", experiment=experiment)
    assert code == 0 and "--data.root" in out and "--optimizer.momentum" in out


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("coco")])
def test_the_step_of_cocos_recipes_fits_together(name, tmp_path):
    draw_coco(tmp_path, 8)
    experiment = load(name).experiment()
    flags = ["--data.root", str(tmp_path)]
    changed = parse(type(experiment), flags, default=experiment)
    check_classes(changed)
    assert "loss" in traced(changed)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)


def scene(rng, size, number=6):
    """An image of grey noise and as many coloured rectangles: image, ids, boxes (x, y, w, h)."""
    image = rng.integers(90, 120, (*size, 3)).astype(np.uint8)
    ids, boxes = np.zeros(size, np.uint16), []
    for n in range(1, number + 1):
        high, wide = (int(rng.integers(m // 8, m // 3)) for m in size)
        y, x = (int(rng.integers(m - n)) for m, n in zip(size, (high, wide), strict=True))
        image[y : y + high, x : x + wide] = rng.integers(0, 255, 3)
        ids[y : y + high, x : x + wide] = n
        boxes.append([x, y, wide, high])
    return image, ids, boxes


def draw_voc(root, fraction=1):
    """Pascal VOC and, in `sbd`, SBD: two images of 375x500 to train on, one to validate."""
    rng = np.random.default_rng(0)
    for split, names in (("train", ("2008_000001", "2008_000002")), ("val", ("2008_000003",))):
        lists = (root / "ImageSets" / "Segmentation" / f"{split}.txt", root / "sbd" / "train.txt")
        for file in lists[: 2 if split == "train" else 1]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(names) + "\n")
        for name in names:
            image, ids, _ = scene(rng, (375 // fraction, 500 // fraction))
            label = (ids * 3).astype(np.uint8)
            label[:2] = 255
            mask = Image.fromarray(label, "L").convert("P")
            mask.putdata(label.ravel())
            save(root / "JPEGImages" / f"{name}.jpg", image)
            save(root / "SegmentationClass" / f"{name}.png", mask)
            if split == "train":
                save(root / "sbd" / "img" / f"{name}.jpg", image)
                (root / "sbd" / "cls").mkdir(exist_ok=True)
                truth = {"GTcls": {"Segmentation": np.where(label == 255, 0, label)}}
                savemat(root / "sbd" / "cls" / f"{name}.mat", truth)


def draw_isbi(root):
    """Three slices of 512x512, cells with membranes between."""
    rng, pages = np.random.default_rng(0), {"volume": [], "labels": []}
    for _ in range(3):
        centres = rng.integers(0, 512, (60, 2))
        away = np.square(np.indices((512, 512))[None] - centres[:, :, None, None]).sum(1)
        first, second = np.sqrt(np.partition(away, 1, axis=0)[:2])
        cell = second - first > 4
        grey = 60 + 120 * cell + rng.normal(0, 20, (512, 512))
        pages["volume"].append(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)))
        pages["labels"].append(Image.fromarray(255 * cell.astype(np.uint8)))
    for name, (page, *rest) in pages.items():
        save(root / f"train-{name}.tif", page, save_all=True, append_images=rest)


def draw_cells(root, size):
    """Two sequences; of frame 1 cell 6 is marked and not drawn."""
    rng = np.random.default_rng(0)
    for sequence in ("01", "02"):
        for time in range(2):
            image, ids, _ = scene(rng, size)
            save(root / sequence / f"t00{time}.tif", image.mean(2).astype(np.uint8))
            truth = root / f"{sequence}_GT"
            save(truth / "TRA" / f"man_track00{time}.tif", ids)
            save(truth / "SEG" / f"man_seg00{time}.tif", np.where(ids > 6 - time, 0, ids))


def draw_coco(root, fraction=1):
    """Two images of 480x640 and 640x480 to train on, one to validate; boxes and stuff."""
    rng, sizes = np.random.default_rng(0), ((480, 640), (640, 480), (480, 640))
    kinds = [{"id": n, "name": f"kind {n}"} for n in range(1, 81)]
    (root / "annotations").mkdir(parents=True)
    for split, numbers in (("train", (1, 2)), ("val", (3,))):
        content = {"images": [], "annotations": [], "categories": kinds}
        for number in numbers:
            size, name = [n // fraction for n in sizes[number - 1]], f"{number:012}"
            image, ids, boxes = scene(rng, size)
            save(root / f"{split}2017" / f"{name}.jpg", image)
            stuff = (8 * ids).astype(np.uint8)
            save(root / f"panoptic_stuff_{split}2017" / f"{name}.png", stuff)
            entry = {"id": number, "file_name": f"{name}.jpg"}
            content["images"].append(entry | {"height": size[0], "width": size[1]})
            for n, box in enumerate(boxes, 1):
                entry = {"id": 10 * number + n, "image_id": number, "category_id": 7 * n}
                area = box[2] * box[3]
                content["annotations"].append(entry | {"bbox": box, "area": area, "iscrowd": 0})
        file = root / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(content))


def draw_weights(folder):
    """In the place of ImageNet's: random ones whose residual branches begin at 0."""
    encoder = resnet50()
    made = jax.jit(partial(encoder.init, train=False))(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    for name, block in made["params"].items():
        if name.startswith("stage"):
            block["norm3"]["batch"]["scale"] *= 0
    weights.save(folder, encoder, made)


def starts(folder, name, *flags, word=None, keep=False):
    """Two steps of one image on one device, in a process of its own; its lines of metrics."""
    free = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    free |= {"PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, str(FOLDER / f"{name}.py"), *[word] * (word is not None)]
    command += [*flags, "--steps", "2", "--batch", "1", "--log-every", "1"]
    done = subprocess.run(command, cwd=folder, env=free, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "runs" / name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert all(np.isfinite(line["loss"]) for line in lines[:2])
    assert (run / "report.html").is_file()
    if not keep:
        shutil.rmtree(run)
    return lines, done.stdout


@pytest.mark.slow
def test_fcns_stages_start_at_full_size(tmp_path):
    """Each from the one before, where its default looks for it."""
    draw_voc(tmp_path / "voc")
    flags = ("--data.root", "voc", "--data.sbd", "voc/sbd")
    for name in ("voc_fcn32s", "voc_fcn16s", "voc_fcn8s"):
        lines, said = starts(tmp_path, name, *flags, keep=True)
        assert lines[0]["loss"] > 0 and ("arrays from runs" in said) == (name != "voc_fcn32s")
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.slow
def test_fcn_at_once_starts_at_full_size(tmp_path):
    draw_voc(tmp_path / "voc")
    lines, _ = starts(tmp_path, "voc_fcn8s_at_once", "--data.root", "voc", "--data.sbd", "voc/sbd")
    assert lines[0]["loss"] > 0


@pytest.mark.slow
def test_unet_on_isbi_starts_at_full_size(tmp_path):
    draw_isbi(tmp_path / "isbi")
    flags = ("--data.root", "isbi", "--data.validate", "2", "3", "--tta", "flip")
    lines, _ = starts(tmp_path, "isbi_unet_paper", *flags)
    assert {"v_rand", "v_info", "rand_error", "pixel_error"} <= set(lines[-1]["val"])


@pytest.mark.slow
@pytest.mark.parametrize("word, size", [("phc_u373", (520, 696)), ("dic_hela", (512, 512))])
def test_unet_on_moving_cells_starts_at_full_size(word, size, tmp_path):
    draw_cells(tmp_path / "cells", size)
    lines, _ = starts(tmp_path, "celltracking_unet_paper", "--data.root", "cells", word=word)
    assert "seg" in lines[-1]["val"]


@pytest.mark.slow
def test_fpns_proposals_and_then_detector_start_at_full_size(tmp_path):
    """From weights, and the detector from both these and the proposals' run, by their defaults."""
    draw_coco(tmp_path / "coco")
    draw_weights(tmp_path / "weights" / "resnet50")
    lines, _ = starts(tmp_path, "coco_fpn_rpn", "--data.root", "coco", keep=True)
    assert {"ar100", "ar1000", "ar_s"} <= set(lines[-1]["val"])
    lines, said = starts(tmp_path, "coco_fpn_faster_rcnn", "--data.root", "coco")
    assert {"ap", "ap50", "ap_s"} <= set(lines[-1]["val"])
    assert "arrays from runs/coco_fpn_rpn; new: decoder/" in said
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.slow
def test_semantic_fpn_starts_at_full_size(tmp_path):
    draw_coco(tmp_path / "coco")
    draw_weights(tmp_path / "weights" / "resnet50")
    lines, _ = starts(tmp_path, "coco_semantic_fpn", "--data.root", "coco")
    assert 0 <= lines[-1]["val"]["mean_iou"] <= 1
