"""encdec completion: what a shell completes `encdec …` by, made by tyro from the flags."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any, Literal, Union

import tyro

from encdec.flags import parse


@dataclasses.dataclass(frozen=True)
class Completion:
    """Print a shell's completion of `encdec …`: eval "$(encdec completion bash)", or into a file.

    bash: ~/.local/share/bash-completion/completions/encdec; zsh: a file _encdec in a folder of
    $fpath. Scripts are not completed: a shell takes `python FILE.py` for a command `python`.

    Attributes:
      shell: whose.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]] = "bash"


@dataclasses.dataclass(frozen=True)
class Plain:
    """A command whose flags are not known before it runs."""


def completion_command(args: list[str], kinds: Callable[[], Mapping[str, Any]]) -> None:
    """completion: print a shell's completion: eval "$(encdec completion bash)"."""
    print(completion(kinds(), parse(Completion, args, prog="encdec completion").shell))


def completion(kinds: Mapping[str, Any], shell: str) -> str:
    """The script for a shell.

    Args:
      kinds: of each command the dataclass of its flags, or None; of one that takes a word first, a
        dict of these by word.
    """
    script, one = io.StringIO(), one_of(kinds)
    with suppress(SystemExit), redirect_stdout(script):
        tyro.cli(one, args=["--tyro-print-completion", shell], prog="encdec")
    return script.getvalue().rstrip()


def one_of(kinds: Mapping[str, Any]) -> Any:
    """A type that is one of the kinds, chosen by its name."""
    return Union[tuple(_named(name, kind) for name, kind in kinds.items())]  # noqa: UP007 (of many)


def _named(name: str, kind: Any) -> Any:
    if isinstance(kind, Mapping):
        kind = dataclasses.make_dataclass(
            name, [("kind", Annotated[one_of(kind), tyro.conf.arg(name="")])]
        )
    return Annotated[kind or Plain, tyro.conf.subcommand(name)]
