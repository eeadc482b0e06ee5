"""The one error that a person, not a programmer, should read."""


class InputError(ValueError):
    """Wrong input: one line that says what was wanted, what came, and what to do.

    The command line prints it without a traceback and exits with code 2. What it quotes of files
    stays one line that prints, see `visible`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class CheckpointError(InputError):
    """Checkpoints are there and none of them can be used: exit code 3; nothing is deleted."""


def visible(text: str) -> str:
    """The text with escapes for what is not to be seen: ends of lines, codes that move a terminal's
    cursor or turn the direction of writing, bytes of a file's name that are no text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
