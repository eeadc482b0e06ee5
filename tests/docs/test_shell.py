"""Every line of shell in the pages and in `encdec --help`: commands and flags are parsed for real,
by the very scripts, and nothing is run after that."""

import re
import runpy
import shlex
import sys
import tomllib

import pytest
import tyro

from encdec import cli, guide
from encdec.figures import command
from tests.docs.pages import PAGES, ROOT, blocks, name

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
OTHERS = {"git", "mkdocs", "ruff", "cd", "."}
"""Programs whose arguments are not looked at."""


class Parsed(BaseException):
    """The flags could be parsed."""


@pytest.fixture
def parsed(monkeypatch, tiny):
    """Calls an entry point with words, up to the parsed flags."""
    real = tyro.cli

    def parse(kind, *args, **options):
        asked = real(kind, *args, **options)
        if options.get("return_unknown_args"):
            return asked
        raise Parsed

    def experiment_of(run):
        path = ROOT / "experiments" / f"{run.name}.py"
        return runpy.run_path(str(path))["experiment"]() if path.is_file() else tiny()

    monkeypatch.setattr(tyro, "cli", parse)
    for module in (cli, command):
        monkeypatch.setattr(module, "load", experiment_of)
    monkeypatch.setattr(cli, "quicken", lambda: None)

    def called(entry, *words):
        monkeypatch.setattr(sys, "argv", list(words))
        try:
            entry()
        except Parsed:
            return
        except SystemExit as stop:
            assert not stop.code and "--help" in words, " ".join(words)
            return
        assert "--help" in words or words[-1] == "report", " ".join(words)

    return called


def lines(text):
    """Commands, with their continuations, without comments, assignments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        if inner := re.search(r"\$\((.*)\)", line):
            yield from lines(inner[1])
            continue
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        given = []
        for word in [*words, "&&"]:
            if word == "&&":
                if given:
                    yield given
                given = []
            else:
                given.append(word)


def check(words, parsed):
    """Raises where the command cannot be."""
    while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] == "env"):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    program, *rest = words
    if program == "encdec":
        parsed(cli.main, *words)
    elif program == "experiments/multihost.sh":
        assert rest[0].isdecimal()
        check(["python", *rest[1:]], parsed)
    elif program == "python" and rest[0] == "-m" and rest[1] == "benchmarks":
        if rest[2:] != ["report"]:
            parsed(lambda: runpy.run_module("benchmarks", run_name="__main__"), *rest[1:])
    elif program == "python" and rest[0] == "-m":
        assert rest[1] == "venv" or (ROOT / rest[1].replace(".", "/")).with_suffix(".py").is_file()
    elif program == "python" and rest[0].startswith("experiments/"):
        path = ROOT / rest[0]
        parsed(lambda: runpy.run_path(str(path), run_name="__main__"), str(path), *rest[1:])
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif program == "pip":
        named = re.findall(r"\.\[([\w,]+)\]", " ".join(rest))
        assert {extra for found in named for extra in found.split(",")} <= set(EXTRAS)
    elif program == "pytest":
        files = [word for word in rest if "/" in word]
        assert all((ROOT / file).exists() for file in files), files
    elif program == "srun":
        check(rest[next(i for i, word in enumerate(rest) if not word.startswith("-")) :], parsed)
    elif program == "gcloud":
        for inner in lines(rest[rest.index("--command") + 1]):
            check(inner, parsed)
    else:
        assert program in OTHERS or (ROOT / program).is_file(), f"{program}: not known here"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_can_be_given(page, parsed):
    for block in blocks(page, "sh"):
        for words in lines(block):
            check(words, parsed)


def test_every_example_of_the_help_can_be_given(parsed):
    examples = [line.strip() for line in guide.EXAMPLES.splitlines() if line.startswith("  ")]
    assert len(examples) > 8
    for line in examples:
        check(shlex.split(line), parsed)


@pytest.mark.parametrize(
    "line",
    [
        "encdec predcit photo.jpg --run runs/camvid_unet",
        "encdec predict photo.jpg --run runs/camvid_unet --tyle 4",
        "encdec evaluate --run runs/camvid_unet --data.spilt test",
        "python experiments/shapes_unet.py --optimizer.rat 1",
        "python experiments/compare.py flder --data.root DIR",
        "python experiments/camvid_segnet.py",
        "python -m benchmarks stepz",
        'pip install -e ".[everything]"',
        "tensorboard --logdir runs",
    ],
)
def test_a_command_that_cannot_be_is_found(line, parsed):
    with pytest.raises((AssertionError, FileNotFoundError)):
        check(shlex.split(line), parsed)
