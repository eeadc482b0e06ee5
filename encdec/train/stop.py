"""Signals that ask a run to end: it saves the step that it is at, and its exit code says why."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax


class Stopped(Exception):
    """A signal ended the run; what it had was saved. Exit code 128 + the signal's number."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.code = 128 + number


class Stop:
    """Notes SIGTERM (exit code 143) and SIGINT (130) between steps; a second SIGINT ends at once.

    Of several hosts SIGTERM is JAX's own: it tells all of them, and `Checkpoints.preempted` says at
    which step they end together. SIGINT to one of them is passed on as SIGTERM.

    Args:
      alone: nothing is done in step with other hosts: each notes its own signals.

    Attributes:
      number: of the signal that came to the only host, or to one alone; 0 if none did.
      interrupted: whether SIGINT was passed on.
    """

    def __init__(self, alone: bool = False) -> None:
        self.alone = alone or jax.process_count() == 1
        self.number = 0
        self.interrupted = False
        self.cutting = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        handlers = {signal.SIGINT: self.pass_on}
        if self.alone:
            handlers = {signal.SIGTERM: self.note, signal.SIGINT: self.note}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self.before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of both, of a host alone."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self.cutting:
            raise Cut

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT, of several hosts."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def cut_short(self) -> Iterator[None]:
        """A signal ends what is inside at once, by raising `Cut`: evaluation can take long."""
        self.cutting = True
        try:
            yield
        finally:
            self.cutting = False


class Cut(Exception):
    """See `Stop.cut_short`."""
