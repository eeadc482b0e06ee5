"""The pages that people read, their blocks of code and their links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "zoo" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in a language."""
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def languages(page: Path) -> set[str]:
    return {kind for kind, _ in FENCE.findall(page.read_text())}


def prose(page: Path) -> str:
    """The page without its blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
