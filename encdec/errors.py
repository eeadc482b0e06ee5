"""The one error that a person, not a programmer, should read."""


class InputError(ValueError):
    """Wrong input: one line that says what was wanted, what came, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
