"""Learning rate, decay, parts and averages, as one optax chain."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from encdec.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    """How the parameters follow their gradient.

    Attributes:
      name: "adamw", or "sgd" with momentum and decay added to the gradient.
      rate: the peak learning rate.
      schedule: after the warm-up, "cosine" to zero, "poly" (1 - t)^0.9, "constant", or "steps".
      drops: shares of the steps after which the rate of "steps" is a tenth of what it was.
      warmup: share of the steps in which the rate rises linearly from zero.
      decay: weight decay, of kernels only: biases and norms have one axis and are left out.
      clip: largest norm of the gradient; 0 leaves it.
      accumulate: steps whose gradients are averaged into one update.
      ema: decay of the parameters' exponential moving average per update; 0 keeps none.
      bias_rate: factor on the rate of all biases; 2 in FCN and its time.
      rates: factors on the rate by part, e.g. (("encoder", 0.1),).
      freeze: parts that do not move at all: no update, no decay, no batch statistics.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    rate: float = 1e-3
    schedule: Literal["cosine", "poly", "constant", "steps"] = "cosine"
    drops: tuple[float, ...] = ()
    warmup: float = 0.05
    decay: float = 1e-4
    momentum: float = 0.9
    clip: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    bias_rate: float = 1.0
    rates: tuple[tuple[str, float], ...] = ()
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise InputError(f"optimizer accumulate must be at least 1; got {self.accumulate}")
        if bool(self.drops) != (self.schedule == "steps") or not all(0 < x < 1 for x in self.drops):
            raise InputError(
                "drops between 0 and 1 go with the schedule steps, and with no other; got "
                f"{self.drops} and {self.schedule}: change --optimizer.drops or "
                "--optimizer.schedule"
            )

    def rate_at(self, steps: int) -> optax.Schedule:
        """The learning rate by update, for a run of that many steps."""
        updates = max(steps // self.accumulate, 1)
        rising = round(updates * self.warmup)
        falling = max(updates - rising, 1)
        falls = {max(round(updates * share) - rising, 1): 0.1 for share in self.drops}
        after = {
            "cosine": optax.cosine_decay_schedule(self.rate, falling),
            "poly": optax.polynomial_schedule(self.rate, 0.0, 0.9, falling),
            "constant": optax.constant_schedule(self.rate),
            "steps": optax.piecewise_constant_schedule(self.rate, falls),
        }[self.schedule]
        if not rising:
            return after
        # The first update already moves: (t + 1) / (rising + 1) of the rate.
        start = self.rate / (rising + 1)
        return optax.join_schedules(
            [optax.linear_schedule(start, self.rate, rising), after], [rising]
        )

    def chain(self, params: Any, steps: int) -> optax.GradientTransformation:
        """The transformation for these parameters.

        Raises:
          InputError: `rates` or `freeze` name a part that the model has not.
        """
        for part in (*self.freeze, *(part for part, _ in self.rates)):
            if part not in params:
                raise InputError(f"the model's parts are {sorted(params)}; got {part!r}")
        decay = optax.add_decayed_weights(
            self.decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
        )
        rate = optax.scale_by_learning_rate(self.rate_at(steps))
        update = {
            "adamw": [optax.scale_by_adam(), decay, rate],
            "sgd": [decay, optax.trace(self.momentum), rate],
        }[self.name]
        clip = [optax.clip_by_global_norm(self.clip)] if self.clip else []
        factors = [
            optax.masked(optax.scale(factor), lambda tree, part=part: mark(tree, part))
            for part, factor in self.rates
        ]
        if self.bias_rate != 1:
            factors.append(optax.masked(optax.scale(self.bias_rate), biases))
        moving = optax.chain(*clip, *update, *factors)
        labels = {part: "frozen" if part in self.freeze else "moving" for part in params}
        chain = optax.partition({"moving": moving, "frozen": optax.set_to_zero()}, labels)
        if self.accumulate == 1:
            return chain
        return optax.MultiSteps(chain, self.accumulate).gradient_transformation()


def biases(tree: Any) -> Any:
    """True for every leaf of that name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "bias", tree)


def mark(tree: Any, part: str) -> Any:
    """True for every leaf of that part."""
    return {
        name: jax.tree.map(lambda _, name=name: name == part, branch)
        for name, branch in tree.items()
    }
