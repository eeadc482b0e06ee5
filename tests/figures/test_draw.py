from itertools import combinations

import pytest

import encdec
from encdec.figures.drawing import Box, Disc, Line, Text, width_of
from tests.figures.networks import NETWORKS, drawn, found


def texts(drawing):
    return [shape.text for shape in drawing.shapes if isinstance(shape, Text)]


def frame(shape):
    """Left, top, right and bottom of a text."""
    wide = width_of(shape.text, shape.size, shape.bold)
    if shape.turned:
        return shape.x - shape.size, shape.y - wide / 2, shape.x, shape.y + wide / 2
    left = shape.x - wide * {"start": 0, "middle": 0.5, "end": 1}[shape.anchor]
    return left, shape.y - 0.75 * shape.size, left + wide, shape.y


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_is_clipped_and_no_text_lies_on_another_or_on_a_map(network, plain):
    drawing = drawn(network, plain)
    frames = {shape: frame(shape) for shape in drawing.shapes if isinstance(shape, Text)}
    for shape, (left, top, right, bottom) in frames.items():
        inside = 0 <= left and 0 <= top and right <= drawing.width and bottom <= drawing.height
        assert inside, shape
    for (one, a), (other, b) in combinations(frames.items(), 2):
        assert not overlap(a, b), (one, other)
    for box in [shape for shape in drawing.shapes if isinstance(shape, Box)]:
        sides = (box.x, box.y, box.x + box.width, box.y + box.height)
        assert 0 <= sides[0] and 0 <= sides[1] and sides[2] <= drawing.width
        assert sides[3] <= drawing.height
        for text, place in frames.items():
            assert text.turned or not overlap(sides, place), (box, text)


def test_every_map_states_its_size(network):
    said, does = texts(drawn(network)), found(network)
    for level in does.levels:
        for step in (level.map, level.merged, level.refine, level.output):
            if step:
                assert f"{step.size[0]}×{step.size[1]}" in said
                assert {str(step.size[2])} & {str(_sum(text)) for text in said}
        assert f"stride {level.stride}" in said
    if does.prediction.logits:
        assert f"{does.prediction.logits[2]} classes" in said
        assert f"{does.prediction.logits[0]}×{does.prediction.logits[1]}" in said


def _sum(text):
    """A concatenated map says "64 + 64"."""
    parts = text.split(" + ")
    return sum(map(int, parts)) if all(part.isdigit() for part in parts) else text


def signs(drawing):
    """Sums, maps of two colours, predictions, levels' outputs."""
    boxes = [shape for shape in drawing.shapes if isinstance(shape, Box) and shape.height != 12]
    ends = {(box.x, box.y): box for box in boxes if box.role == "decoder"}
    two = [b for b in boxes if b.role == "encoder" and (b.x + b.width, b.y) in ends]
    roles = [box.role for box in boxes]
    sums = sum(isinstance(shape, Disc) for shape in drawing.shapes)
    return sums, len(two), roles.count("logits"), roles.count("output")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("fcn32s", (0, 0, 1, 0)),
        ("fcn16s", (1, 0, 1, 0)),
        ("fcn8s", (2, 0, 1, 0)),
        ("unet", (0, 4, 1, 0)),
        ("unet on resnet", (0, 4, 1, 0)),
        ("unet that adds", (2, 0, 1, 0)),
        ("deep supervision", (0, 4, 5, 0)),
        ("smp unet", (0, 4, 1, 0)),
        ("semantic fpn", (4, 0, 1, 5)),
        ("fpn that concatenates", (1, 3, 1, 5)),
        ("rpn", (3, 0, 5, 5)),
        ("retinanet", (2, 0, 5, 5)),
        ("ssd300", (0, 0, 6, 0)),
        ("dilated", (0, 0, 2, 0)),
        ("form a", (0, 0, 1, 1)),
        ("form c", (3, 0, 5, 5)),
        ("form d", (0, 0, 5, 5)),
        ("form e", (0, 0, 5, 5)),
        ("form f", (3, 0, 1, 1)),
    ],
)
def test_each_family_has_its_signs(name, expected):
    assert signs(drawn(name)) == expected


def test_words_on_the_arrows():
    assert texts(drawn("unet")).count("copy, crop") == 4
    assert texts(drawn("padded unet")).count("copy") == 2
    assert texts(drawn("fcn8s")).count("score 1×1, crop") == 2
    assert "fixed bilinear ×8" in texts(drawn("fcn8s"))
    assert texts(drawn("rpn")).count("nearest ×2") == 3
    assert texts(drawn("rpn")).count("3 × (class 1, box 4)") == 5
    assert any(text.startswith("one head for all levels") for text in texts(drawn("rpn")))
    assert texts(drawn("ssd300")).count("6 × (class 5, box 4)") == 3


def test_blocks_grow_with_rows_and_channels_and_lie_by_stride():
    boxes = [shape for shape in drawn("unet on resnet").shapes if isinstance(shape, Box)]
    image = next(box for box in boxes if box.role == "image")

    def below(box):
        return box.role == "encoder" and abs(box.x + (box.width - image.width) / 2 - image.x) < 1

    down = [box for box in boxes if below(box)]
    assert len(down) == 5 and down == sorted(down, key=lambda box: box.y)
    heights, widths = [box.height for box in down], [box.width for box in down]
    assert heights == sorted(heights, reverse=True) and heights[0] > heights[3]
    assert widths == sorted(widths) and widths[1] < widths[4]


def test_arrows_end_at_blocks_or_heads(network):
    """Every arrow's head touches a box."""
    drawing = drawn(network)
    boxes = [s for s in drawing.shapes if isinstance(s, Box)]
    bracket = {p for s in drawing.shapes if isinstance(s, Line) and not s.arrow for p in s.points}
    for line in drawing.shapes:
        if isinstance(line, Line) and line.arrow:
            x, y = line.points[-1]
            near = [
                b
                for b in boxes
                if b.x - 1 <= x <= b.x + b.width + 1 and b.y - 1 <= y <= b.y + b.height + 1
            ]
            assert near or any(abs(x - at) < 1 for at, _ in bracket), line


def test_a_plain_figure_has_channels_and_no_words():
    said = texts(drawn("rpn", plain=True, title="FPN"))
    assert set(said) == {"FPN", "image", "8", "16", "32", "64", "256"}


def test_draw_takes_a_model_and_a_size():
    drawing = encdec.draw(NETWORKS["padded unet"], (64, 96), channels=1)
    assert drawing.title == "Plain + UNet + Pixel" and "64×96×1" in texts(drawing)
    assert encdec.draw(NETWORKS["unet"], (60, 80)).shapes  # the next good size: 188
