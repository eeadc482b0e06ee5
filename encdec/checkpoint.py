"""State <-> orbax; the only file that knows it."""

import hashlib
import logging
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from encdec import hosts
from encdec.errors import CheckpointError, InputError
from encdec.train.state import State


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by `metric`.

    A step counts only when all of it is on disk, and only while every array is what was saved:
    orbax itself restores flipped bytes without a word. Saving goes on while training does.

    Args:
      read_only: touch nothing, not even what a training that goes on is about to save.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, metric: str = "mean_iou", read_only: bool = False
    ) -> None:
        def score(metrics: dict[str, float]) -> float:
            value = metrics.get(metric, -math.inf)
            return value if math.isfinite(value) else -math.inf

        for name in ("absl", "asyncio"):  # orbax's failures by the hundred lines; ours is one
            logging.getLogger(name).disabled = True
        self.folder = folder
        self.damaged: set[int] = set()
        self.manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                # `max_to_keep` with a best metric may delete the newest step: state both wishes.
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(
                            get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False
                        ),
                    ]
                ),
                cleanup_tmp_directories=not read_only,
                create=not read_only,  # orbax's own `read_only` warns of itself
            ),
        )

    def save(self, state: State, scores: dict[str, float] | None = None) -> None:
        """Starts saving the state under its step, with the scores that choose the best."""
        step = int(state.step)
        if step in self.damaged:
            self.damaged.remove(step)
            self.manager.delete(step)
        if step not in self.manager.all_steps():
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(state), digests=ocp.args.JsonSave(digests(state))
            )
            with writing(self.folder):
                self.manager.save(step, args=arguments, metrics=scores, force=True)

    def preempted(self, step: int) -> bool:
        """Whether one of several hosts was told to end, and all are to end after this step."""
        return jax.process_count() > 1 and self.manager.reached_preemption(step)

    def restore(self, shapes: State) -> State | None:
        """The newest state, with these shapes, types and places; None where there is none.

        Raises:
          CheckpointError: there are checkpoints, but none can be read into such a state.
        """
        reason = ""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes), digests=ocp.args.JsonRestore()
        )
        for step in sorted(self.manager.all_steps(), reverse=True):
            wrong = ""
            try:
                found = self.manager.restore(step, args=arguments)
                check(found["state"], found["digests"])
            except Exception as error:  # orbax's failures have no common type
                wrong = _line(error)
            if not any(told := hosts.exchange(wrong)):  # all hosts go on from the same one
                return found["state"]
            reason = wrong or next(filter(None, told))
            self.damaged.add(step)
            place = self.folder / str(step)
            print(f"checkpoint {place} cannot be read: {reason}", file=sys.stderr, flush=True)
        if reason:
            raise CheckpointError(
                f"no checkpoint under {self.folder} can be read ({reason}); restore the files, or "
                "start anew in another --workdir"
            )
        return None

    def close(self) -> None:
        """Returns when everything is on disk.

        Raises:
          InputError: it cannot be.
        """
        with writing(self.folder):
            self.manager.close()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says in one line what went wrong; orbax writes beside the training, and tells it later."""
    try:
        yield
    except Exception as error:  # orbax's failures have no common type
        raise InputError(
            f"a checkpoint could not be written to {folder}: {_line(error)}; make room, or mend "
            "the disk: the same command goes on from the newest whole one"
        ) from error


def _line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def digests(state: Any) -> dict[str, str]:
    """SHA-256 of every array, with its type and shape, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to others
        return dict(zip(names, pool.map(_digest, (leaf for _, leaf in leaves)), strict=True))


def check(state: State, saved: dict[str, str]) -> None:
    """Raises ValueError naming the first array that is not what was saved."""
    found = digests(state)
    wrong = sorted(name for name in found.keys() | saved if found.get(name) != saved.get(name))
    if wrong:
        raise ValueError(f"{wrong[0]} is not what was saved ({len(wrong)} of {len(saved)} arrays)")


def _digest(leaf: jax.Array) -> str:
    array = np.ascontiguousarray(leaf)
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + array.data.cast("B") if array.size else head).hexdigest()
