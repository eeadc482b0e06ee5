"""What is said while a program is compiled, which can take minutes without any other sign."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from encdec import hosts


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """ "compiling WHAT … ", and once it is done the seconds that it took, on the same line.

    Of several hosts the first says it.
    """
    began, silent = time.perf_counter(), not hosts.is_first()
    if not silent:
        print(f"compiling {what} … ", end="", flush=True)
    try:
        yield
    except BaseException:
        if not silent:
            print(flush=True)  # what went wrong has its own line
        raise
    if not silent:
        print(f"{time.perf_counter() - began:.1f} s", flush=True)
