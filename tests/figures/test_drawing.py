import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from encdec.errors import InputError
from encdec.figures import drawing
from encdec.figures.drawing import THEMES, Box, Disc, Drawing, Line, Text, beside

EVIL = "</title><script>alert(1)</script>\"' onload=x $\\bad{$\n"
SHAPES = (
    Line(((10, 20), (30, 20))),
    Box(30, 10, 20, 20, "encoder"),
    Disc(40, 20, 5, "head"),
    Text(52, 24, "a<b & c"),
    Text(70, 35, "up", turned=True, role="soft"),
)
DRAWING = Drawing(SHAPES, 80, 40, "a drawing")


def names(svg):
    return [element.tag.split("}")[1] for element in ElementTree.fromstring(svg)]


def test_an_svg_holds_every_shape_in_order():
    assert names(DRAWING.svg()) == [
        "title", "style", "rect", "path", "path", "rect", "circle", "text", "text",
    ]  # fmt: skip
    root = ElementTree.fromstring(DRAWING.svg())
    assert root.get("viewBox") == "0 0 80 40" and root.get("aria-label") == "a drawing"
    assert [text.text for text in root.findall("{*}text")] == ["a<b & c", "up"]


def test_text_is_escaped():
    svg = Drawing((Text(0, 9, EVIL),), 9, 9, EVIL).svg()
    assert "<script" not in svg and len(names(svg)) == 4  # title, style, paper, text
    assert set(ElementTree.fromstring(svg).attrib) == {
        "viewBox", "width", "height", "role", "aria-label",
    }  # fmt: skip
    Drawing((Text(0, 9, EVIL),), 9, 9, EVIL).png()  # nor is it a formula


def test_an_svg_follows_the_readers_screen_unless_told():
    dark = THEMES["dark"]["encoder"][0]
    light = THEMES["light"]["encoder"][0]
    assert [c in DRAWING.svg() for c in (light, dark, "prefers-color-scheme")] == [True] * 3
    assert [c in DRAWING.svg("light") for c in (light, dark, "prefers")] == [True, False, False]
    assert [c in DRAWING.svg("dark") for c in (light, dark, "prefers")] == [False, True, False]


def test_themes_have_the_same_roles_and_text_that_can_be_read():
    assert THEMES["light"].keys() == THEMES["dark"].keys()
    for colours in THEMES.values():
        paper = _luminance(colours["paper"][0])
        for role in ("ink", "soft"):
            text = _luminance(colours[role][0])
            high, low = max(text, paper), min(text, paper)
            assert (high + 0.05) / (low + 0.05) > 4.5, role  # WCAG 2.1, 1.4.3


def _luminance(colour):
    share = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme, name", [("auto", "light"), ("light", "light"), ("dark", "dark")])
def test_a_png_shows_the_same(theme, name):
    picture = np.asarray(Image.open(io.BytesIO(DRAWING.png(theme))).convert("RGB"))
    assert picture.shape == (80, 160, 3)

    def at(x, y):
        return "#" + "".join(f"{value:02x}" for value in picture[2 * y, 2 * x])

    assert at(1, 1) == THEMES[name]["paper"][0]
    assert at(32, 12) == THEMES[name]["encoder"][0]
    assert at(40, 20) == THEMES[name]["head"][0]
    assert at(26, 20) == THEMES[name]["ink"][1]  # the arrow's head


def test_beside_each_other():
    both = beside([DRAWING, DRAWING], "two")
    assert (both.width, both.height, len(both.shapes)) == (160, 40, 10)
    assert both.shapes[5].points == ((90, 20), (110, 20)) and both.shapes[6].x == 110


def test_it_is_written_as_its_name_ends(tmp_path):
    DRAWING.save(tmp_path / "new" / "a.svg", "dark")
    DRAWING.save(tmp_path / "a.png")
    assert (tmp_path / "new" / "a.svg").read_text("utf-8") == DRAWING.svg("dark")
    assert Image.open(tmp_path / "a.png").size == (160, 80)
    assert DRAWING._repr_svg_() == DRAWING.svg()


@pytest.mark.parametrize("name", ["a", "a.pdf", "a.png/b.svg"])
def test_files_that_cannot_be_are_refused(tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(name)):
        DRAWING.save(tmp_path / name)


def test_another_theme_is_refused():
    with pytest.raises(InputError, match="wanted a theme of auto, light, dark; got 'dim'"):
        drawing._check("dim")
