import numpy as np
import pytest

from encdec.table import show, spread, table

ROWS = [
    {"model": "FCN-32s", "merged": None, "decoder parameters": 14343, "mean IoU": (0.41, 0.012)},
    {"model": "U-Net <b>", "merged": "a|b", "decoder parameters": 120, "mean IoU": (0.71, 0.01)},
]


def test_the_table_is_aligned_markdown_with_the_best_in_bold():
    lines = table(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("-: |") and lines[1].startswith("| --")
    assert "**0.710 ± 0.010**" in lines[3] and "a\\|b" in lines[3] and "–" in lines[2]


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([0.5], 0.5),
        ([0.4, 0.6], (0.5, pytest.approx(0.02**0.5))),
        ([float("nan"), 0.5], None),
        ([float("nan")], None),
    ],
)
def test_values_of_several_runs_are_a_cell(values, cell):
    assert spread(values) == cell


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("mean IoU", 0.51649, "0.516"),
        ("mean IoU", float("nan"), "–"),
        ("worth: mean IoU", (-0.0004, 0.01), "0.000 ± 0.010"),
        ("boundary F", np.float32(0.25), "0.250"),
        ("decoder parameters", 12188480, "12,188,480"),
        ("GFLOPs", 3.914, "3.91"),
        ("images/s", 41.26, "41.3"),
        ("memory MiB", 1311.7, "1,312"),
        ("images/s", (41.26, 1.04), "41.3 ± 1.0"),
        ("mean IoU", (0.5, float("nan")), "0.500"),
        ("merged", None, "–"),
    ],
)
def test_a_cell_reads(column, value, text):
    assert show(column, value) == text
