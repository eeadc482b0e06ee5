"""Every reader on generated bad files: each ends in what it should give, or in one line.

`pytest -m slow tests/test_fuzz.py` makes 160 files for each reader, 30 prepared sets: 2,430.
"""

import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save
from scipy.io import savemat

import encdec
from encdec import coco_results
from encdec.arrays import IGNORE
from encdec.data import folders, images
from encdec.data.annotations import Annotated
from encdec.data.biomedical import DSB2018, ISBI
from encdec.data.check import check
from encdec.data.datasets import CamVid, Folder, Shapes, VOCSegmentation
from encdec.data.detection import COCODetection, VOCDetection
from encdec.data.pipeline import checked, opened
from encdec.errors import InputError
from encdec.experiment import Experiment, load, to_json
from encdec.report import history
from encdec.weights.artefact import restore
from encdec.weights.artefact import save as keep
from encdec.weights.files import read

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's: they are no errors when it is used

H, W = 12, 20
IDS = np.tile((np.arange(W) % 3).astype(np.uint8), (H, 1))
NET = encdec.EncoderDecoder(encdec.Plain((2, 2)), encdec.UNet((1, 2), (2,)), encdec.Pixel(3))


def picture(form: str, mode: str = "RGB", pages: int = 1) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    ids = 255 * (IDS > 0).astype(np.uint8) if mode == "cells" else IDS
    known = mode in ("L", "P", "cells")
    own = Image.fromarray(ids) if known else Image.fromarray(noise).convert(mode)
    if mode == "P":
        own.putpalette([7 * i % 256 for i in range(768)])
    file = io.BytesIO()
    more = {"save_all": True, "append_images": [own] * (pages - 1)} if pages > 1 else {}
    own.save(file, form, **more)
    return file.getvalue()


XML = f"""<annotation><size><width>{W}</width><height>{H}</height></size>
<object><name>a</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax>
<ymax>8</ymax></bndbox></object><object><name>b</name><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>5.5</xmax><ymax>4</ymax></bndbox></object></annotation>""".encode()

COCO = {
    "images": [{"id": 1, "file_name": "one.png", "height": H, "width": W}],
    "categories": [{"id": 4, "name": "a"}, {"id": 9, "name": "b"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 9,
            "bbox": [2, 3, 6, 5.5],
            "area": 20,
            "iscrowd": 0,
            "segmentation": [[2, 3, 8, 3, 8, 8.5, 2, 8.5]],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 4,
            "bbox": [0, 0, 4, 4],
            "segmentation": {"size": [H, W], "counts": [5, 5, H * W - 10]},
        },
    ],
}

RESULTS = [
    {"image_id": 1, "category_id": 4, "score": 0.5, "bbox": [1, 2, 3, 4]},
    {
        "image_id": 1,
        "category_id": 9,
        "score": 0.7,
        "segmentation": {"size": [2, 2], "counts": "4"},
    },
]


def laid(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def dataset_is_sound(dataset: Any) -> None:
    """Reads all of a set; what is read fits, and `check` names what is not read."""
    for line in check(dataset, ["train"]):
        assert line.isprintable()
    source, classes = opened(dataset, "train"), len(dataset.classes)
    keys = ("boxes", "areas", "instances") if "boxes" in dataset.truth else dataset.truth
    if isinstance(source, Annotated) and not source.masked:
        keys = ("boxes", "areas")
    for i in range(len(source)):
        example_is_sound(checked(source, i, classes, keys, dataset.max_boxes), classes)


def example_is_sound(example: dict[str, np.ndarray], classes: int) -> None:
    image = example["image"]
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert 1 <= image.shape[0] * image.shape[1] <= images.PIXELS
    if "label" in example:
        label = example["label"]
        assert label.shape == image.shape[:2] and label.dtype == np.uint8
        assert np.isin(label, [*range(classes), IGNORE]).all()
    if "instances" in example:
        assert example["instances"].shape == image.shape[:2] and example["instances"].min() >= 0
    if "boxes" in example:
        boxes, limit = example["boxes"], np.array(image.shape[:2] * 2)
        assert boxes.shape[1] == 4 and np.isfinite(boxes).all()
        assert (boxes >= 0).all() and (boxes <= limit).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) == len(example["classes"]) == len(example["crowd"])
        assert ((example["classes"] >= 0) & (example["classes"] < classes)).all()
        assert np.isfinite(example["areas"]).all() and (example["areas"] >= 0).all()


def an_image(root: Path) -> None:
    for path in root.iterdir():
        image = images.read_image(path)
        assert image.ndim == 3 and 1 <= image.shape[0] * image.shape[1] <= images.PIXELS


def a_folder(root: Path) -> None:
    dataset_is_sound(Folder(root, names=("a", "b", "c"), share=0.3))


def a_stack(root: Path) -> None:
    dataset_is_sound(ISBI(root, validate=(0, 1)))


def nuclei(root: Path) -> None:
    dataset_is_sound(DSB2018(root))


def voc(root: Path) -> None:
    dataset_is_sound(VOCSegmentation(root))


def camvid(root: Path) -> None:
    dataset_is_sound(CamVid(root))


def voc_boxes(root: Path) -> None:
    dataset_is_sound(VOCDetection(root, names=("a", "b")))


def coco(root: Path) -> None:
    dataset_is_sound(COCODetection(root))


def matlab(root: Path) -> None:
    source = folders.sbd(root)
    for i in range(len(source)):
        example_is_sound(checked(source, i, 21, ("label",)), 21)


def weights(root: Path) -> None:
    for path in root.iterdir():
        assert all(a.dtype.kind in "biufc" for a in read(path).values())


def model(root: Path) -> None:
    assert hasattr(restore(root)[0], "apply")


def a_run(root: Path) -> None:
    assert all(isinstance(line["step"], int) for line in history(root))
    assert isinstance(load(root), Experiment)


def results(root: Path) -> None:
    found = coco_results.found(coco_results.read(root / "detections.json"), (4, 9))
    for own in found.values():
        assert own["boxes"].shape == (len(own["scores"]), 4)


def scenes(root: Path) -> None:
    dataset_is_sound(Shapes(root, size=16, train=2, val=1, test=1))


def h5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content.create_dataset("model_weights/conv_1/conv_1_W", data=np.ones((2, 3)), chunks=(1, 3))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, a=np.arange(30.0), b=np.ones((2, 3), np.float32))
    return file.getvalue()


def mat() -> bytes:
    file = io.BytesIO()
    savemat(file, {"GTcls": {"Segmentation": IDS}}, do_compression=True)
    return file.getvalue()


def net() -> dict[str, bytes]:
    import jax

    variables = jax.eval_shape(NET.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with tempfile.TemporaryDirectory() as folder:
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
        keep(Path(folder) / "net", NET, zeros)
        return {path.name: path.read_bytes() for path in (Path(folder) / "net").iterdir()}


def run_folder() -> dict[str, bytes]:
    experiment = Experiment(NET, Shapes(), encdec.Augment((32, 32)), encdec.Segment(3))
    lines = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 2, 3)]
    return {
        "experiment.json": json.dumps(to_json(experiment)).encode(),
        "metrics.jsonl": "\n".join(lines).encode(),
    }


def drawn() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        scenes(Path(folder))
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pair(stem: str, mask: bytes) -> dict[str, bytes]:
    return {f"train/images/{stem}.png": picture("PNG"), f"train/masks/{stem}.png": mask}


def voc_files() -> dict[str, bytes]:
    files = {"ImageSets/Segmentation/train.txt": b"one\ntwo\n"}
    for name in ("one", "two"):
        files[f"JPEGImages/{name}.jpg"] = picture("JPEG")
        files[f"SegmentationClass/{name}.png"] = picture("PNG", "P")
        files[f"SegmentationObject/{name}.png"] = picture("PNG", "P")
    return files


def box_files() -> dict[str, bytes]:
    files = {"ImageSets/Main/train.txt": b"one\ntwo 1\n"}
    for name in ("one", "two"):
        files |= {f"JPEGImages/{name}.jpg": picture("JPEG"), f"Annotations/{name}.xml": XML}
    return files


def camvid_files() -> dict[str, bytes]:
    both = {"train/a b.png": picture("PNG"), "trainannot/a b.png": picture("PNG", "L")}
    both |= {"train/a.png": picture("PNG"), "trainannot/a.png": picture("PNG", "L")}
    return both | {"train.txt": b"/SegNet/train/a.png /SegNet/trainannot/a.png\n"}


def coco_files() -> dict[str, bytes]:
    text = json.dumps(COCO).encode()
    return {"annotations/instances_train.json": text, "images/one.png": picture("PNG")}


def sbd_files() -> dict[str, bytes]:
    return {"train.txt": b"a\n", "img/a.jpg": picture("JPEG"), "cls/a.mat": mat()}


STACK = {
    "train-volume.tif": picture("TIFF", "L", pages=3),
    "train-labels.tif": picture("TIFF", "cells", pages=3),
}

READERS: dict[str, tuple[Callable[[Path], None], Callable[[], dict[str, bytes]]]] = {
    "images": (
        an_image,
        lambda: {
            f"{form} {mode}.png": picture(form, mode)
            for form, mode in [("PNG", "RGBA"), ("JPEG", "CMYK"), ("TIFF", "RGB"), ("GIF", "P")]
        },
    ),
    "folder": (
        a_folder,
        lambda: pair("one", picture("PNG", "P")) | pair("2 雪", picture("TIFF", "L")),
    ),
    "stack": (a_stack, lambda: STACK),
    "nuclei": (
        nuclei,
        lambda: {
            "x/images/x.png": picture("PNG"),
            "x/masks/1.png": picture("PNG", "L"),
            "y/images/y.png": picture("PNG"),
            "y/masks/1.png": picture("PNG", "1"),
        },
    ),
    "voc": (voc, voc_files),
    "voc boxes": (voc_boxes, box_files),
    "camvid": (camvid, camvid_files),
    "coco": (coco, coco_files),
    "matlab": (matlab, sbd_files),
    "safetensors": (weights, lambda: {"a.safetensors": save({"a": np.ones((3, 4))})}),
    "npz": (weights, lambda: {"a.npz": npz()}),
    "h5": (weights, lambda: {"a.h5": h5()}),
    "model": (model, net),
    "run": (a_run, run_folder),
    "results": (results, lambda: {"detections.json": json.dumps(RESULTS).encode()}),
    "scenes": (scenes, drawn),
}

NUMBERS = b"NaN -Infinity 1e999 -1 0 4294967296 0.5 null true [] {}".split() + [b"9" * 5000]
TEXTS = [
    *(b"", b'""', b'"\\ud800"', b"[" * 100_000, b'{"a":' * 100_000, b"x" * 5000, b'"is"'),
    *("é雪\u202e".encode(), b"\xff\xfe", b"\0", b"\n", b"a\nb", b"\x1b[2J", b"os:system"),
    *(b"../../../etc/passwd", b"/etc/passwd", b"encdec.cli:Train", b"<object>", b"</object>"),
    *(b"&lol;", b"]]>", b'<!DOCTYPE a [<!ENTITY lol "lol">]>'),
]
ODD = NUMBERS + TEXTS
"""Words that stand where others are wanted."""


@st.composite
def damages(draw: st.DrawFn) -> list[tuple]:
    """What is done to a file, one after the other; places are parts of its length."""
    place = st.floats(0, 1, exclude_max=True)
    one = st.one_of(
        st.tuples(st.just("cut"), place),
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("write"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("drop"), place, st.integers(1, 64)),
        st.tuples(st.just("word"), place, st.sampled_from(ODD)),
        st.tuples(st.just("word"), place, st.sampled_from(ODD)),
    )
    return draw(st.lists(one, min_size=1, max_size=3))


def damaged(data: bytes, damage: tuple) -> bytes:
    kind, place, *how = damage
    at = int(place * len(data))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << how[0]]) + data[at + 1 :] if data else data
    if kind == "write":
        return data[:at] + how[0] + data[at + len(how[0]) :]
    if kind == "insert":
        return data[:at] + how[0] + data[at:]
    if kind == "drop":
        return data[:at] + data[at + how[0] :]
    words = [m.span() for m in re.finditer(rb'"[^"]*"|[\w.+-]+', data)]
    if not words:
        return how[0]
    first, last = words[int(place * len(words))]
    return data[:first] + how[0] + data[last:]


WHOLE: dict[str, dict[str, bytes]] = {}


def ends_well(kind: str, which: float, changes: list[tuple]) -> None:
    act, make = READERS[kind]
    files = WHOLE.setdefault(kind, make())
    name = sorted(files)[int(which * len(files))]
    data = files[name]
    for change in changes:
        data = damaged(data, change)
    with tempfile.TemporaryDirectory() as folder:
        laid(Path(folder), files | {name: data})
        try:
            act(Path(folder))
        except InputError as error:
            assert str(error).isprintable(), "not one line that prints"


CHOICE = given(st.floats(0, 1, exclude_max=True), damages())
HOW = dict(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a damage is small: to shrink it takes longer than to find it
    report_multiple_bugs=False,
)


@pytest.mark.parametrize("kind", READERS)
def test_the_files_are_good_before_they_are_damaged(kind, tmp_path):
    act, make = READERS[kind]
    laid(tmp_path, WHOLE.setdefault(kind, make()))
    act(tmp_path)


@pytest.mark.parametrize("kind", READERS)
def test_a_sample_of_bad_files_ends_in_an_example_or_in_one_line(kind):
    settings(max_examples=4, derandomize=True, **HOW)(CHOICE(lambda w, d: ends_well(kind, w, d)))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_two_thousand_bad_files_end_in_examples_or_in_one_line(kind):
    number = 30 if kind == "scenes" else 160  # TFDS takes long to open a set
    settings(max_examples=number, **HOW)(CHOICE(lambda w, d: ends_well(kind, w, d)))()
