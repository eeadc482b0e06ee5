"""What mkdocs makes beside docs/*.md: the notebooks of colab/ as tutorials, a page of every file of
the checkout that a page links to, and the patterns of mkdocs.yml's nav."""

import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
PICTURES = (".png", ".jpg", ".svg")
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".json": "json", ".yml": "yaml"}


def on_config(config: MkDocsConfig) -> None:
    """Replaces nav's patterns by the pages that they match and that nav does not name."""
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    pages += [f"tutorials/{path.stem}.md" for path in notebooks()]
    named = {name for name in leaves(config.nav) if "*" not in name}
    config.nav = expanded(config.nav, sorted(set(pages) - named))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the notebooks and what the pages link to outside docs/."""
    for notebook in notebooks():
        folder = f"{notebook.stem}_files"
        text, made = MarkdownExporter().from_filename(
            str(notebook), resources={"output_files_dir": folder}
        )
        name = f"tutorials/{notebook.stem}.md"
        files.append(File.generated(config, name, content=text))
        for picture, content in made["outputs"].items():
            files.append(File.generated(config, f"tutorials/{picture}", content=content))
    linked = {to for file in files.documentation_pages() for to in outside(file).values()}
    for path in sorted(linked):
        if path.suffix in PICTURES:
            made = File.generated(config, target(path), abs_src_path=str(ROOT / path))
        elif path.suffix == ".ipynb":
            continue  # it is there
        else:
            made = File.generated(config, target(path), content=source(path))
        files.append(made)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that lead out of docs/ to the pages made of what is there."""
    found = outside(page.file)
    start = PurePosixPath(page.file.src_uri).parent.as_posix()

    def turned(match: re.Match[str]) -> str:
        path = found.get(match[1])
        return match[1] if path is None else relpath(target(path), start)

    return LINK.sub(turned, markdown)


def notebooks() -> list[Path]:
    """In the order of their names."""
    return sorted((ROOT / "colab").glob("*.ipynb"))


def leaves(nav: Any) -> list[str]:
    """The pages and patterns of a nav."""
    if isinstance(nav, str):
        return [nav]
    return [
        leaf for item in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(item)
    ]


def expanded(nav: Any, pages: list[str]) -> Any:
    """The nav with lists of pages in the place of patterns."""
    if isinstance(nav, dict):
        return {
            title: expanded([item] if isinstance(item, str) and "*" in item else item, pages)
            for title, item in nav.items()
        }
    if isinstance(nav, list):
        items: list[Any] = []
        for item in nav:
            if isinstance(item, str) and "*" in item:
                deep = item.count("/")
                items += [p for p in pages if fnmatch(p, item) and p.count("/") == deep]
            else:
                items.append(expanded(item, pages))
        return items
    return nav


def outside(file: File) -> dict[str, PurePosixPath]:
    """The links of a page that lead out of docs/, and the files meant, from the root.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if file.src_uri.startswith(("tutorials/", "source/")):
        return {}
    found = {}
    for link in LINK.findall(file.content_string):
        path = normpath(f"docs/{PurePosixPath(file.src_uri).parent}/{link.partition('#')[0]}")
        if "://" in link or link.startswith(("#", "mailto:")) or path.startswith("docs/"):
            continue
        if not (ROOT / path).is_file():
            raise FileNotFoundError(f"{file.src_uri} links to {link}: there is no such file")
        found[link] = PurePosixPath(path)
    return found


def target(path: PurePosixPath) -> str:
    """Where the site has a file of the checkout."""
    if path.suffix == ".ipynb":
        return f"tutorials/{path.stem}.md"
    return f"source/{path}" if path.suffix in PICTURES else f"source/{path}.md"


def source(path: PurePosixPath) -> str:
    """A page of a file's text, which the search leaves out."""
    text = (ROOT / path).read_text()
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    fence = "`" * 6
    return f"{head}{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}{fence}\n"
