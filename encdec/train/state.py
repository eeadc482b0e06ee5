"""All that a run carries from step to step: arrays only."""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class State:
    """What a step changes.

    Attributes:
      step: batches so far, int32 () — a Python int would compile the step twice.
      params: float32 parameters by part: "encoder", "decoder", "head".
      stats: the model's other collections, {"batch_stats": …} where it normalises by the batch.
      opt: state of the optimizer.
      ema: exponential moving average of the parameters; None where not asked for.
      bad: steps that were not finite and changed nothing, int32 (2,): the last in a row, and all.
    """

    step: Any
    params: Any
    stats: Any
    opt: Any
    ema: Any = None
    bad: Any = None

    def variables(self) -> dict[str, Any]:
        """What to evaluate with: averaged parameters where there are any."""
        return {"params": self.params if self.ema is None else self.ema, **self.stats}


def count(params: Any) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
