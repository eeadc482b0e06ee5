"""Writes papers.md beside it: what the papers say, and the test that shows that encdec does it.

    python docs/papers.py

A row is a `@pytest.mark.paper("FCN §4.2", says="…", does="…", differs="…")` on a test.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "papers.md"
PAPERS = {
    "FCN": "Long, Shelhamer, Darrell: Fully convolutional networks for semantic segmentation "
    "(CVPR 2015), and the networks that its authors released",
    "U-Net": "Ronneberger, Fischer, Brox: U-Net, convolutional networks for biomedical image "
    "segmentation (MICCAI 2015), and the network that its authors released",
    "FPN": "Lin et al.: Feature pyramid networks for object detection (CVPR 2017)",
    "Fast R-CNN": "Girshick: Fast R-CNN (ICCV 2015)",
    "RetinaNet": "Lin et al.: Focal loss for dense object detection (ICCV 2017)",
    "Mask R-CNN": "He et al.: Mask R-CNN (ICCV 2017)",
    "Panoptic FPN": "Kirillov et al.: Panoptic feature pyramid networks (CVPR 2019)",
    "SSD": "Liu et al.: SSD, single shot multibox detector (ECCV 2016)",
    "torchvision": "The library's networks and operations of that name",
    "smp": "The networks of segmentation_models.pytorch",
}
HEAD = """# What the papers say, and what encdec does

Written by `python docs/papers.py` from the marks on the tests; a row without a test cannot be here.
"""
COLUMNS = "| paper says | encdec does | test | known difference |\n|---|---|---|---|"


@dataclass(frozen=True)
class Fact:
    """Attributes:
    paper: one of PAPERS.
    place: in it: a section, "release".
    file: of the test, from the root.
    """

    paper: str
    place: str
    says: str
    does: str
    differs: str
    file: str
    test: str


def facts(file: Path) -> Iterator[Fact]:
    """The facts that the tests of a file show; nothing is imported."""
    for node in ast.walk(ast.parse(file.read_text())):
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.paper":
                yield read(mark, file, node.name)


def read(mark: ast.Call, file: Path, test: str) -> Fact:
    """The fact of one mark.

    Raises:
      ValueError: it is not one place and three texts, says, does and differs; or of no known paper.
    """
    where = f"{file.relative_to(ROOT)}, {test}"
    texts = {word.arg: word.value for word in mark.keywords}
    if len(mark.args) != 1 or set(texts) != {"says", "does", "differs"}:
        raise ValueError(f"{where}: paper wants a place, says, does and differs")
    try:
        place, *values = map(ast.literal_eval, (mark.args[0], *texts.values()))
    except ValueError:
        raise ValueError(f"{where}: paper wants literal texts") from None
    paper = max(
        (name for name in PAPERS if f"{place} ".startswith(f"{name} ")), default="", key=len
    )
    if not paper:
        raise ValueError(f"{where}: paper wants one of {', '.join(PAPERS)}; got {place!r}")
    within = place.removeprefix(paper).strip()
    texts = dict(zip(texts, values, strict=True))
    return Fact(paper, within, **texts, file=str(file.relative_to(ROOT)), test=test)


def page() -> str:
    """The whole page: a table for each paper, its rows by section."""
    found = [fact for file in sorted((ROOT / "tests").rglob("test_*.py")) for fact in facts(file)]
    text = HEAD
    for paper, title in PAPERS.items():
        rows = [fact for fact in found if fact.paper == paper]
        rows.sort(key=lambda fact: (not fact.place.startswith("§"), fact.place))  # releases last
        text += f"\n## {paper}\n\n{title}.\n\n{COLUMNS}\n" + "".join(map(row, rows))
    return text


def row(fact: Fact) -> str:
    test = f"[{fact.test.removeprefix('test_').replace('_', ' ')}](../{fact.file})"
    says = f"{fact.place}: {fact.says}"
    cells = (says, fact.does, test, fact.differs)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
