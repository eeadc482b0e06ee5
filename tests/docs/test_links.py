"""Links within the checkout, the site's list of pages, and figures that stand in two places."""

import re

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, name, prose

LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page):
    """Of the headings, as GitHub and mkdocs make them."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in found}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file() and ROOT in target.parents, f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_site_lists_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = set(re.findall(r"[\w/]+\.md", str(nav)))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed <= pages
    assert all("/" not in page for page in pages - listed)  # these are found by the pattern *.md
    assert "'*.md'" in str(nav)


def test_the_figures_of_which_one_are_readmes():
    """They are copied: a table that is measured again is to change in both."""
    readme = (ROOT / "README.md").read_text()
    text = (ROOT / "docs/which.md").read_text()
    text = text[text.index("## On drawn scenes") :]  # before it stand those of the results
    rows = [line for line in text.splitlines() if line[:1] == "|"]
    measured = [row for row in rows if re.search(r"\d", row)]
    assert len(measured) > 20 and [row for row in measured if row not in readme] == []


def test_every_variable_of_the_environment_is_in_the_reference():
    """What the code reads of the environment is in the page of the command line."""
    code = "".join(path.read_text() for path in (ROOT / "encdec").rglob("*.py"))
    page = (ROOT / "docs/reference/commands.md").read_text()
    assert set(re.findall(r"ENCDEC_[A-Z]+", code)) == set(re.findall(r"ENCDEC_[A-Z]+", page))
