"""train_step and eval_step: pure, one device's view."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

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
        bad = jnp.zeros(2, jnp.int32)
        return State(jnp.zeros((), jnp.int32), params, variables, opt, ema, bad)

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
    Where the loss, a gradient or a statistic is not finite, nothing but the step's number changes.

    Args:
      remat: keep the maps of each stride for the gradient, and compute what is between them again.

    Returns:
      The next state; and the losses by name, means over what counts in the global batch.
    """
    augment_key, dropout_key, sample_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    batch = augment(augment_key, batch)

    def loss_fn(params: Any) -> tuple[Array, Any]:
        outputs, stats = model.apply(
            {"params": params, **state.stats},
            batch["image"],
            train=True,
            frozen=optimizer.freeze,
            mutable=list(state.stats),
            targets=batch if task.samples else None,
            rngs={"dropout": parallel.device_key(dropout_key), "sample": sample_key},
        )
        # Sums over global counts: a mean of per-device means is wrong where pixels are ignored.
        shares = {
            name: total / jnp.maximum(parallel.psum(count), 1e-6)
            for name, (total, count) in task.loss(outputs, batch, sample_key).items()
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
    stats = parallel.pmean(stats)
    good = finite((losses["loss"], grads, stats))
    new = state.replace(params=params, stats=stats, opt=opt, ema=ema)
    kept = jax.tree.map(partial(jnp.where, good), new, state)
    bad = jnp.where(good, state.bad * jnp.array([0, 1]), state.bad + 1)
    return kept.replace(step=step, bad=bad), losses


def finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers of the arrays are."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def eval_step(
    variables: Any, batch: Batch, *, model: EncoderDecoder, task: Any
) -> dict[str, Array]:
    """What the task measures of this batch, and of each of its images, the same on every device."""
    targets = {"size": batch["size"]} if task.samples else None
    outputs = model.apply(variables, batch["image"], train=False, targets=targets)
    return task.measure(outputs, batch) | task.each(outputs, batch)
