"""Flags -> frozen dataclasses, by tyro; what it refuses is one line and not a box."""

import io
import re
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from difflib import SequenceMatcher, get_close_matches
from typing import Any, TypeVar

import tyro

from encdec.errors import InputError

Job = TypeVar("Job")


def parse(kind: type, args: list[str], **options: Any) -> Any:
    """`tyro.cli`, but what it refuses is one line and not a box.

    A field that may be None or an object is set by a word, `data.border:none` or
    `data.border:border`, and the flags of the object come after it.

    Raises:
      InputError: a flag is unknown, lacks its value, or has one that cannot be.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, args=args, config=(tyro.conf.CascadeSubcommandArgs,), **options)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    box = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())
    rows = [row.strip("│╭╮╰╯─ ") for row in box.splitlines()]
    end = rows.index("", 1) if "" in rows[1:] else len(rows)  # the first rule, or the frame's
    message = re.sub(r" \(applied to [^)]*\)", "", " ".join(rows[1:end] or rows)).rstrip(".")
    known = rows[rows.index("Perhaps you meant:") :] if "Perhaps you meant:" in rows else []
    wrong = "".join(re.findall(r"--[\w.-]+", message)[:1])
    close = max(
        (row for row in known if row.startswith("--")),
        key=lambda row: SequenceMatcher(None, row.split(" ")[0], wrong).ratio(),
        default="",
    )
    hint = f"; perhaps {close} was meant" if close else ""
    word = re.search(r" (\S+:\S+) --help", " ".join(rows))
    if word and set(re.findall(r"--[\w.-]+", close)) & set(
        args
    ):  # it is a flag, of what is not here
        hint = f"; say {word[1]} before it"
    raise InputError(f"{message}{hint}; --help lists all flags")


def chosen(jobs: dict[str, Job]) -> Job:
    """The job that the command line names before its flags, else the first, changed by the flags.

    Raises:
      InputError: there is no such job, or a flag is wrong.
    """
    args = sys.argv[1:]
    name = next(iter(jobs)) if not args or args[0].startswith("-") else args.pop(0)
    if name not in jobs:
        raise InputError(f"wanted one of {', '.join(jobs)}; got {name}{nearest(name, jobs)}")
    return parse(type(jobs[name]), args, default=jobs[name])


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for the end of a message, the known word that was probably meant; or nothing."""
    close = get_close_matches(word.lower(), known, 1)
    return f"; perhaps {close[0]} was meant" if close else ""
