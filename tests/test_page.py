import re

import numpy as np
import pytest
from PIL import Image

from encdec import page
from encdec.errors import InputError

CLASSES = ("background", "disc & ring", "<script>")
NAMES = ("FCN-32s", "U-Net <b>")
ROWS = [
    {"model": "FCN-32s", "merged": None, "decoder parameters": 14343, "mean IoU": (0.41, 0.012)},
    {"model": "U-Net <b>", "merged": "a|b", "decoder parameters": 120, "mean IoU": (0.71, 0.01)},
]


def sample(size=(12, 18), seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, size, np.uint8)
    label[0] = 255
    image = rng.integers(0, 255, ((size[0] + 1) // 2, (size[1] + 1) // 2, 3), np.uint8)
    predictions = {name: rng.integers(0, 3, size, np.uint8) for name in NAMES}
    return {"image": image, "label": label, "predictions": predictions}


HISTORY = [
    {"step": 1, "loss": 2.0, "images_per_s": 3.0},
    {"step": 2, "loss": float("nan"), "images_per_s": 3.0, "val": {"mean_iou": float("nan")}},
    {"step": 3, "loss": 1.0, "images_per_s": 3.0, "val": {"mean_iou": 0.5, "boundary_f": 0.25}},
]


def compare(folder, **changes):
    given = {
        "title": "A & B",
        "command": "python x.py --a '<b>'",
        "rows": ROWS,
        "histories": dict.fromkeys(NAMES, HISTORY),
        "samples": [sample(seed=i) for i in range(2)],
        "classes": CLASSES,
        "facts": {"machine": "2 cores", "experiment": '{\n"a": "<i>"}'},
    }
    return page.write_comparison(folder, **(given | changes))


def run(folder, **changes):
    given = {
        "title": "A run",
        "history": HISTORY,
        "scores": {"mean_iou": 0.5, "pixel_accuracy": 0.75},
        "per_class": {"background": 0.9, "disc & ring": float("nan"), "<script>": 0.1},
        "samples": [sample()],
        "classes": CLASSES,
        "facts": {"machine": "2 cores"},
    }
    return page.write_run(folder, **(given | changes))


@pytest.mark.parametrize("write", [compare, run])
def test_a_page_needs_nothing_else_and_runs_nothing(write, tmp_path):
    text = write(tmp_path / "new" / "folder").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", text)
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"@import|url\((?!#)|<script|<link|<i>\"", text)
    assert "prefers-color-scheme:dark" in text and "width=device-width" in text
    assert not re.search(r"\bnan\b", text.partition("<main>")[2], re.IGNORECASE)


def test_a_comparison_holds_every_row_column_and_fact(tmp_path):
    text = compare(tmp_path).read_text(encoding="utf-8")
    for words in ("FCN-32s", "U-Net &lt;b&gt;", "decoder parameters", "14,343", "0.410", "0.012"):
        assert words in text
    assert "<b>0.710" in text and "<b>0.410" not in text
    assert "A &amp; B" in text and "&lt;i&gt;" in text and "disc &amp; ring" in text


@pytest.mark.parametrize("size", [(1, 1), (2, 6), (12, 18)])
def test_pictures_lie_beside_the_page_at_any_size(size, tmp_path):
    compare(tmp_path, samples=[sample(size)] if size != (1, 1) else [one_pixel()])
    for name in ("comparison.png", "curves.png", "differences.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 20


def one_pixel():
    label = np.zeros((1, 1), np.uint8)
    image = np.zeros((1, 1, 3), np.uint8)
    return {"image": image, "label": label, "predictions": dict.fromkeys(NAMES, label)}


def test_a_comparison_before_any_training_still_draws(tmp_path):
    compare(tmp_path, histories={})
    assert (tmp_path / "curves.png").exists()


def test_a_comparison_of_nothing_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="got 2 rows and 0 samples"):
        compare(tmp_path, samples=[])


def test_a_prediction_of_another_size_is_one_clear_line(tmp_path):
    wrong = sample()
    wrong["predictions"]["FCN-32s"] = np.zeros((3, 3), np.uint8)
    with pytest.raises(InputError, match="resize it to the label first"):
        compare(tmp_path, samples=[wrong])


def test_a_sample_that_lacks_a_model_is_one_clear_line(tmp_path):
    short = sample()
    del short["predictions"]["FCN-32s"]
    with pytest.raises(InputError, match="predict it with all of them"):
        compare(tmp_path, samples=[sample(), short])


def test_a_run_ranks_classes_worst_first_and_names_the_absent(tmp_path):
    text = run(tmp_path).read_text(encoding="utf-8")
    table = text[text.index("worst first") :]
    order = [
        table.index(f"{name}</th>") for name in ("&lt;script&gt;", "background", "disc &amp; ring")
    ]
    assert order == sorted(order)
    assert "<td>absent</td>" in table


def test_a_run_without_samples_or_history_still_has_a_page(tmp_path):
    assert "0.750" in run(tmp_path, samples=[], history=[]).read_text(encoding="utf-8")
