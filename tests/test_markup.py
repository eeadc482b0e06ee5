import numpy as np
import pytest

from encdec import markup


@pytest.mark.parametrize(
    "html",
    [
        markup.document("<a> & b", []),
        markup.note("<a> & b"),
        markup.key({"<a> & b": (1, 2, 3)}),
        markup.facts({"<a> & b": "<a> & b"}),
        markup.table([{"model": "<a> & b"}], ["model"]),
        markup.figure(np.zeros((2, 2, 3), np.uint8), "<a> & b"),
        markup.figure([np.zeros((2, 2, 3), np.uint8)] * 2, "<a> & b"),
        markup.tiles({"<a> & b": "<a> & b"}),
        markup.folded({"<a> & b": "<a> & b"}),
        markup.matrix(np.full((1, 1), 100.0), [("<a> & b", (0, 0, 0))]),
    ],
)
def test_text_is_escaped(html):
    assert "&lt;a&gt; &amp; b" in html and "<a>" not in html


@pytest.mark.parametrize(("width", "form"), [(64, "png"), (700, "jpeg")])
def test_a_large_photograph_becomes_a_jpeg(width, form):
    photograph = np.random.default_rng(0).integers(0, 255, (80, width, 3), np.uint8)
    assert f'src="data:image/{form};base64,' in markup.figure(photograph, "image")


def test_a_flat_picture_stays_a_png_at_any_size():
    assert "image/png" in markup.figure(np.zeros((8, 700, 3), np.uint8), "map")


def test_charts_are_drawn_in_the_colour_of_the_text():
    html = markup.charts({"loss": {"FPN": [(1.0, 2.0), (2.0, 1.0)]}})
    assert html.count("<svg") == 1 and "currentColor" in html and "#000000" not in html


def test_only_the_best_cell_of_a_measured_column_is_bold():
    rows = [{"model": "a", "mean IoU": 0.25}, {"model": "b", "mean IoU": 0.5}]
    html = markup.table(rows, ["model", "mean IoU"])
    assert "<b>0.500</b>" in html and "<b>0.250</b>" not in html
