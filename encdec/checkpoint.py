"""State <-> orbax; the only file that knows it."""

import math
from pathlib import Path

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from encdec.errors import InputError
from encdec.train.state import State


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by `metric`.

    A step counts only when all of it is on disk. Saving goes on while training does.

    Args:
      read_only: touch nothing, not even what a training that goes on is about to save.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, metric: str = "mean_iou", read_only: bool = False
    ) -> None:
        def score(metrics: dict[str, float]) -> float:
            value = metrics.get(metric, -math.inf)
            return value if math.isfinite(value) else -math.inf

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
            self.manager.save(step, args=ocp.args.StandardSave(state), metrics=scores, force=True)

    def restore(self, shapes: State) -> State | None:
        """The newest state, with these shapes, types and places; None where there is none.

        Raises:
          InputError: there are checkpoints, but none can be read into such a state.
        """
        reason = ""
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                return self.manager.restore(step, args=ocp.args.StandardRestore(shapes))
            except Exception as error:  # orbax's failures have no common type
                reason = str(error).strip().splitlines()[0] if str(error) else repr(error)
                self.damaged.add(step)
                print(f"checkpoint {self.folder / str(step)} cannot be read: {reason}", flush=True)
        if reason:
            raise InputError(
                f"no checkpoint under {self.folder} can be read ({reason}); restore the files, or "
                "start anew in another --workdir"
            )
        return None

    def close(self) -> None:
        """Returns when everything is on disk."""
        self.manager.close()
