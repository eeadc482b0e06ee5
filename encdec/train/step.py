"""train_step and eval_step: pure, one device's view."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from encdec import parallel
from encdec.arrays import MAP, Batch
from encdec.model import EncoderDecoder
from encdec.random import initial_key
from encdec.train.optimizer import Optimizer
from encdec.train.state import State


def create_state(
    model: EncoderDecoder, optimizer: Optimizer, images: tuple[int, ...], seed: int, steps: int
) -> State:
    """The state before the first step, a function of the seed alone, for images of that shape."""

    @jax.jit  # one program: most of a parameter's time is its compiling
    def created(key: Array) -> State:
        variables = dict(model.init(key, jnp.zeros(images)))
        params = variables.pop("params")
        opt = optimizer.chain(params, steps).init(params)
        ema = jax.tree.map(jnp.copy, params) if optimizer.ema else None
        return State(jnp.zeros((), jnp.int32), params, variables, opt, ema)

    return created(initial_key(seed))


def train_step(
    state: State,
    batch: Batch,
    key: Array,
    *,
    model: EncoderDecoder,
    task: Any,
    augment: Callable[[Array, Batch], Batch],
    optimizer: Optimizer,
    steps: int,
    remat: bool = False,
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """One update from this device's rows of the batch.

    All randomness follows from the run's key, the step and an example's place in the global batch.

    Args:
      remat: keep the maps of each stride for the gradient, and compute what is between them again.

    Returns:
      The next state; and the losses by name, means over what counts in the global batch.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = augment(augment_key, batch)

    def loss_fn(params: Any) -> tuple[Array, Any]:
        outputs, stats = model.apply(
            {"params": params, **state.stats},
            batch["image"],
            train=True,
            frozen=optimizer.freeze,
            mutable=list(state.stats),
            rngs={"dropout": parallel.device_key(dropout_key)},
        )
        # Sums over global counts: a mean of per-device means is wrong where pixels are ignored.
        shares = {
            name: total / jnp.maximum(parallel.psum(count), 1e-6)
            for name, (total, count) in task.loss(outputs, batch).items()
        }
        return sum(shares.values()), (shares, stats)

    if remat:
        only_maps = jax.checkpoint_policies.save_only_these_names(MAP)
        loss_fn = jax.checkpoint(loss_fn, policy=only_maps)
    grads, (shares, stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads, losses = parallel.psum((grads, shares))
    chain = optimizer.chain(state.params, steps)
    updates, opt = chain.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    ema = state.ema
    if ema is not None:
        moved = jnp.where(step % optimizer.accumulate == 0, 1 - optimizer.ema, 0.0)
        # Early averages weigh the few steps there were, not the random start.
        rate = jnp.where(moved > 0, jnp.maximum(moved, 1 / (1 + step / optimizer.accumulate)), 0)
        ema = optax.incremental_update(params, ema, rate)
    losses = {"loss": sum(losses.values()), **losses}
    return State(step, params, parallel.pmean(stats), opt, ema), losses


def eval_step(
    variables: Any, batch: Batch, *, model: EncoderDecoder, task: Any
) -> dict[str, Array]:
    """The task's integer sums over this batch, the same on every device."""
    outputs = model.apply(variables, batch["image"], train=False)
    return parallel.psum(task.measure(outputs, batch))
