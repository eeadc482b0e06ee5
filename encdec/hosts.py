"""What several hosts tell one another: which is to read what, and what is wrong on one of them."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

from encdec.errors import CheckpointError, InputError

HEARTBEAT = 100
"""Seconds without a sign of life after which a host counts as dead; JAX's own default."""

LOST = (
    "error: this host ends here, or another one did; end all of them, and start all with the same "
    "command: the run goes on from its newest checkpoint"
)

LEAVING = 3.0
"""Seconds in which the first host lets the others say what they have to."""


def join() -> None:
    """Joins the hosts that $ENCDEC_HOSTS names: "auto" (TPU pod, Slurm), or "ADDRESS:PORT,N,I".

    $ENCDEC_HEARTBEAT: seconds without a sign of life after which a host counts as dead, and the
    others end.

    Raises:
      InputError: they say something else.
    """
    hosts = os.environ.get("ENCDEC_HOSTS")
    if not hosts:
        return
    said = os.environ.get("ENCDEC_HEARTBEAT", str(HEARTBEAT))
    if not said.isdecimal() or not int(said):
        raise InputError(f"ENCDEC_HEARTBEAT wants whole seconds, 1 or more; got {said!r}")
    address, number, index = None, None, None
    if hosts != "auto":
        try:
            address, number, index = hosts.split(",")
            number, index = int(number), int(index)
        except ValueError:
            raise InputError(
                f'ENCDEC_HOSTS wants "auto" or "ADDRESS:PORT,NUMBER OF HOSTS,INDEX"; got {hosts!r}'
            ) from None
        if not 0 <= index < number:
            raise InputError(
                f"ENCDEC_HOSTS wants an index from 0 to {number - 1}, another on every host; got "
                f"{hosts!r}"
            )
    jax.distributed.initialize(address, number, index, heartbeat_timeout_seconds=int(said))


def is_first() -> bool:
    """Whether this host is the one that says and writes things."""
    return jax.process_index() == 0


def share(count: int) -> tuple[int, ...]:
    """Which of the numbers below `count` are this host's: each is one host's."""
    return tuple(range(jax.process_index(), count, jax.process_count()))


def exchange(tree: Any) -> list[Any]:
    """What every host gives, the first host's first; all hosts call it, and wait for one another.

    Args:
      tree: dicts of strings to numpy arrays, numbers, text; they come bit for bit.
    """
    if jax.process_count() == 1:
        return [tree]
    mine = np.frombuffer(serialization.msgpack_serialize(tree), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(mine)))
    row = np.zeros(lengths.max(), np.uint8)
    row[: len(mine)] = mine
    rows = multihost_utils.process_allgather(row)
    return [
        serialization.msgpack_restore(row[:length].tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]


@contextmanager
def together() -> Iterator[None]:
    """What is wrong inside on one host ends all: the others would wait for it.

    Nothing inside may wait for other hosts.

    Raises:
      InputError: this host's own, or another host's.
    """
    mine: InputError | None = None
    try:
        yield
    except InputError as error:
        mine = error
    kind = "" if mine is None else type(mine).__name__
    for host, told in enumerate(exchange({"kind": kind, "said": str(mine)})):
        if mine is not None:
            raise mine
        if told["kind"]:
            wrong = CheckpointError if told["kind"] == "CheckpointError" else InputError
            raise wrong(f"host {host}: {told['said']}")


def leave(code: int) -> None:
    """Ends this host at once where there are others, which may be waiting for it in a step: JAX
    would wait for them at the exit.

    The first host takes a little longer: others that end for the same reason would be cut off.
    """
    if jax.process_count() > 1:
        time.sleep(LEAVING if is_first() else 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
