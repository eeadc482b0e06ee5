import re

import numpy as np
import pytest
from PIL import Image

from encdec import page, page_comparison
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


SHARED = {
    "classes": CLASSES,
    "facts": {"machine": "2 cores", "experiment": '{\n"a": "<i>"}'},
    "settings": {"every <field>": '{\n"a": "<i>"}'},
}
TABLE = np.array([[90, 10, 0], [0, 0, 0], [1, 399, 0]])


def compare(folder, **changes):
    per_class = {"background": 0.9, "disc & ring": float("nan"), "<script>": 0.1}
    given = SHARED | {
        "title": "A & B",
        "intro": "Two <models>.",
        "command": "python x.py --a '<b>'",
        "rows": ROWS,
        "histories": dict.fromkeys(NAMES, HISTORY),
        "per_class": {"FCN-32s": per_class, "U-Net <b>": per_class | {"<script>": 0.95}},
        "confusions": dict.fromkeys(NAMES, TABLE),
        "samples": [sample(seed=i) for i in range(2)],
        "changes": [{"flag": "--model", "FCN-32s": "<a>", "U-Net <b>": None}],
    }
    return page_comparison.write_comparison(folder, **(given | changes))


def run(folder, **changes):
    given = SHARED | {
        "title": "A run",
        "history": HISTORY,
        "scores": {"mean_iou": 0.5, "pixel_accuracy": 0.75},
        "per_class": {"background": 0.9, "disc & ring": float("nan"), "<script>": 0.1},
        "confusion": TABLE,
        "samples": [{**sample(), "predictions": {"predicted": sample()["label"]}}],
    }
    return page.write_run(folder, **(given | changes))


@pytest.mark.parametrize("write", [compare, run])
def test_a_page_needs_nothing_else_and_runs_nothing(write, tmp_path):
    text = write(tmp_path / "new" / "folder").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", text)
    assert "&lt;script&gt;" in text and "every &lt;field&gt;" in text
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
    with pytest.raises(InputError, match="at least one row; got none"):
        compare(tmp_path, rows=[])


def test_a_comparison_without_images_has_its_numbers(tmp_path):
    text = compare(tmp_path, samples=[], confusions={}, per_class={}).read_text("utf-8")
    assert "0.710" in text and "<img" not in text and "Confusions" not in text
    assert not (tmp_path / "comparison.png").exists()


def test_classes_of_several_stand_worst_first_and_the_best_of_each_is_bold(tmp_path):
    text = compare(tmp_path).read_text("utf-8")
    table = text[text.index("worst first") :]
    assert table.index("&lt;script&gt;</th>") < table.index("background</th>")
    assert "<b>0.950</b>" in table and "<b>0.900" not in table, "no class is won by all"


def test_a_matrix_has_the_share_of_each_true_class(tmp_path):
    text = run(tmp_path).read_text("utf-8")
    cells = re.findall(r"<td style=\"background:rgba\(0,114,178,([\d.]+)\)\">([^<]*)<", text)
    shown = ["90", "10", "", "", "", "", "&lt;1", "100", ""]
    assert [words for _, words in cells] == shown and cells[0][0] == "0.540"


def test_of_many_classes_the_commonest_confusions_are_listed(tmp_path):
    names = tuple(f"class <{i}>" for i in range(30))
    table = 100 * np.eye(30, dtype=int)
    table[3, 7] = 25
    text = run(tmp_path, classes=names, confusion=table, per_class={}).read_text("utf-8")
    assert "class=matrix" not in text
    row = re.search("<tr><th>class &lt;3&gt;</th><td>class &lt;7&gt;</td><td class=n>([^<]*)", text)
    assert row[1] == "20.0" and "<th>class &lt;4&gt;" not in text


def test_what_is_said_of_a_sample_stands_above_it(tmp_path):
    about = {
        **sample(),
        "about": "Worst: <image> 3.",
        "predictions": {"predicted": sample()["label"]},
    }
    text = run(tmp_path, samples=[about]).read_text("utf-8")
    assert "Worst: &lt;image&gt; 3." in text and "wrong: 0.0 %" in text


def test_objects_are_drawn_with_what_is_false_and_missed(tmp_path):
    box = np.array([[2, 2, 8, 8]], np.float32)
    truth = {"boxes": np.concatenate([box, box + 10]), "classes": np.zeros(2, int)}
    found = {"boxes": box, "classes": np.zeros(1, int), "scores": np.ones(1)}
    one = {"image": sample()["image"], "truth": truth, "predictions": {"predicted": found}}
    text = run(tmp_path, samples=[one], kind="ap50", confusion=None).read_text("utf-8")
    assert "0 false, 1 missed" in text and text.count("<img") == 3
    several = one | {"predictions": dict.fromkeys(NAMES, found)}
    compare(tmp_path, samples=[several], kind="ap50", confusions={})
    assert (tmp_path / "comparison.png").exists() and not (tmp_path / "differences.png").exists()


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
    assert "<td class=n>absent</td>" in table


def test_a_run_without_samples_or_history_still_has_a_page(tmp_path):
    assert "0.750" in run(tmp_path, samples=[], history=[]).read_text(encoding="utf-8")
