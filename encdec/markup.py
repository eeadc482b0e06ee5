"""What a report page is made of: its style, and pieces of HTML that need nothing else.

Text is escaped here; pictures lie in the page itself.
"""

import io
import itertools
import re
from base64 import b64encode
from html import escape

import matplotlib
import numpy as np
from jaxtyping import Float
from PIL import Image

from encdec import visualize
from encdec.table import best_of, numeric, show
from encdec.visualize import Colour

PAGE = """<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style><main><h1>{title}</h1>
{body}
</main></html>
"""

STYLE = """
:root{color-scheme:light dark;--paper:#fdfdfb;--ink:#1d2126;--soft:#666d77;--line:#dfe1e4;
--wash:#f3f4f2}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e6e9;--soft:#979ea8;--line:#30353c;
--wash:#1d2126}}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 Charter,Georgia,serif}
main{max-width:1080px;margin:auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 1rem}h2{font-size:1.25rem;margin:2.6rem 0 .6rem}
p{margin:.6rem 0;max-width:44rem}.note{color:var(--soft);font-size:.9rem}
pre{background:var(--wash);padding:.6rem .9rem;border-radius:6px;overflow-x:auto;margin:.6rem 0;
font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
.scroll{overflow-x:auto}table{border-collapse:collapse}
table,figcaption,.key,.tiles,dl,svg text{font-family:system-ui,sans-serif!important}
table,dl{font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.42rem .9rem .42rem 0;
border-bottom:1px solid var(--line)}
tr:first-child th{vertical-align:bottom}.scroll tr:first-child th{color:var(--soft);font-weight:500}
.scroll td~th,.scroll tr:not(:first-child) th{font-weight:400}
.scroll th:first-child{position:sticky;left:0;background:var(--paper)}
table th:first-child{white-space:nowrap}.charts figure{max-width:26rem}
.n{text-align:right;white-space:nowrap}td small{color:var(--soft);font-weight:400}
.charts,.strip{display:grid;gap:.8rem;margin:.6rem 0 1.2rem}
.charts{grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr))}
.strip{grid-template-columns:repeat(auto-fit,minmax(100px,1fr))}
figure{margin:0}svg{width:100%;height:auto}svg text{fill:currentColor}
img{display:block;width:100%;border-radius:3px}.px{image-rendering:pixelated}
figcaption{font-size:13px;line-height:1.3;margin:.3rem 0}
figcaption small{display:block;color:var(--soft)}
.key{font-size:13px;max-width:none}.key span{margin-right:1.1rem;white-space:nowrap}
.chip{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em;
box-shadow:0 0 0 1px var(--line)}
.tiles{display:flex;flex-wrap:wrap;gap:.5rem 2.4rem;font-size:13px;color:var(--soft)}
.tiles b{display:block;font-size:1.7rem;line-height:1.2;color:var(--ink);font-weight:600}
.classes{width:100%;max-width:44rem}.classes th{font-weight:400}.wide{width:60%}
.bar{display:block;height:.8em;margin-top:.25em;background:#0072b2;border-radius:2px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.35rem 1.4rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll table:not(.matrix) td:not(.n){min-width:7rem}
.matrix td{text-align:center;padding:.3rem .25rem;min-width:1.7rem;border:1px solid var(--paper)}
.matrix th{border:0;padding:.3rem .6rem .3rem 0;font-weight:400}
.matrix tr:first-child th{vertical-align:bottom;padding:.3rem 0}
.matrix span{writing-mode:vertical-rl;white-space:nowrap;transform:rotate(180deg)}
.matrix span .chip{margin:0 0 .4em}
details{margin:.4rem 0}summary{cursor:pointer;font:14px system-ui,sans-serif}
img+img{margin-top:3px}
@media(max-width:600px){.strip{grid-template-columns:repeat(2,1fr);gap:.5rem}
.strip:has(>:nth-child(3):last-child){grid-template-columns:1fr}
.strip:has(>:nth-child(5)){grid-template-columns:repeat(3,1fr)}
dl{grid-template-columns:minmax(0,1fr);gap:.1rem}dd{margin-bottom:.5rem}}
"""


def document(title: str, parts: list[str]) -> str:
    """The whole page; `parts` are HTML, one below the other."""
    return PAGE.format(title=escape(title), style=STYLE, body="\n".join(parts))


def note(text: str) -> str:
    """A paragraph, smaller and paler than the text."""
    return f"<p class=note>{escape(text)}</p>"


def chip(colour: list[int] | tuple[int, ...] | str) -> str:
    """A small square of a colour: (r, g, b) of 0 to 255, or CSS."""
    css = colour if isinstance(colour, str) else "rgb({},{},{})".format(*colour)
    return f'<i class=chip style="background:{css}"></i>'


def key(colours: dict) -> str:
    """What the colours mean, by name."""
    spans = (f"<span>{chip(colour)}{escape(name)}</span>" for name, colour in colours.items())
    return f"<p class=key>{''.join(spans)}</p>"


def facts(given: dict[str, str]) -> str:
    """A list of names and what is so; several lines stay as they are."""
    lines = ""
    for name, fact in given.items():
        value = f"<pre>{escape(fact)}</pre>" if "\n" in fact else escape(fact)
        lines += f"<dt>{escape(name)}</dt><dd>{value}</dd>"
    return f"<dl>{lines}</dl>"


def tiles(given: dict[str, str]) -> str:
    """A few numbers, large, each with its name."""
    each = (f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in given.items())
    return f"<div class=tiles>{''.join(each)}</div>"


def details(name: str, html: str) -> str:
    """What a click opens."""
    return f"<details><summary>{escape(name)}</summary>{html}</details>"


def folded(given: dict[str, str]) -> str:
    """Long texts by name, each opened by a click."""
    return "".join(details(name, f"<pre>{escape(text)}</pre>") for name, text in given.items())


def matrix(share: Float[np.ndarray, "k k"], classes: list[tuple[str, Colour]]) -> str:
    """Numbers of 0 to 100, the darker the more; rows and columns are the classes."""
    names = [f"{chip(colour)}{escape(name)}" for name, colour in classes]
    body = "<th></th>" + "".join(f"<th><span>{name}</span></th>" for name in names)
    for name, row in zip(names, share, strict=True):
        cells = ""
        for value in row:
            text = "" if value == 0 else "&lt;1" if value < 0.5 else f"{value:.0f}"
            cells += f'<td style="background:rgba(0,114,178,{0.6 * value / 100:.3f})">{text}</td>'
        body += f"<tr><th>{name}</th>{cells}</tr>"
    return f"<div class=scroll><table class=matrix>{body}</table></div>"


def table(rows: list[dict[str, object]], columns: list[str]) -> str:
    """Some columns of `rows` (see `encdec.table`), best values bold."""
    best = best_of(rows)
    side = {column: " class=n" if numeric(rows, column) else "" for column in columns}
    body = "".join(f"<th{side[column]}>{escape(column)}</th>" for column in columns)
    for row in rows:
        cells = f"<th>{escape(show(columns[0], row.get(columns[0])))}</th>"
        for column in columns[1:]:
            text = escape(show(column, row.get(column))).replace(" ±", "&nbsp;<small>±")
            text += "</small>" if "<small>" in text else ""
            marked = row.get(column) is not None and row.get(column) == best.get(column)
            cells += f"<td{side[column]}>{f'<b>{text}</b>' if marked else text}</td>"
        body += f"<tr>{cells}</tr>"
    return f"<div class=scroll><table>{body}</table></div>"


def charts(panels: dict[str, dict]) -> str:
    """Panels as inline SVG whose black is the page's own text colour."""
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    colours = key(dict(zip(names, itertools.cycle(visualize.SERIES))))
    figures = ""
    for quantity, lines in panels.items():
        # Empty lines keep each name's colour the same in every panel.
        drawn = visualize.curves({quantity: dict.fromkeys(names, []) | lines}, key=False)
        file = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": quantity}):
            blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            drawn.savefig(file, format="svg", transparent=True, metadata=blank)
        svg = file.getvalue()
        svg = re.sub("#000000|#262626", "currentColor", svg[svg.index("<svg") :])
        figures += f"<figure>{svg}</figure>"
    return f"{colours}<div class=charts>{figures}</div>"


def figure(pictures: np.ndarray | list[np.ndarray], caption: str) -> str:
    """A picture, or some one below the other; a second line of the caption is set paler."""
    several = pictures if isinstance(pictures, list) else [pictures]
    name, _, remark = caption.partition("\n")
    words = f"<figcaption>{escape(name)}<small>{escape(remark)}</small></figcaption>"
    return f"<figure>{''.join(_image(picture, name) for picture in several)}{words}</figure>"


def _image(picture: np.ndarray, name: str) -> str:
    """A picture, 640 pixels wide at most: PNG, or JPEG where it is a large photograph."""
    if picture.shape[1] > 640:
        picture = visualize.fit(picture, 640)
    image, file = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    small = image.width <= 256
    form = "PNG" if small or image.getcolors(4096) else "JPEG"  # None: there are more colours
    image.save(file, form, optimize=True, quality=90)
    data = f"data:image/{form.lower()};base64,{b64encode(file.getvalue()).decode()}"
    crisp = " class=px" if small else ""
    return f'<img{crisp} alt="{escape(name)}" src="{data}">'
