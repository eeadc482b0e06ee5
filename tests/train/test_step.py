"""One update: what moves, what stays, what is averaged."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.data.pipeline import train_batches
from encdec.train.optimizer import Optimizer
from encdec.train.step import create_state, eval_step, train_step

SHAPE = (1, 32, 32, 3)
TASK = encdec.Segment(8)
STILL = encdec.Augment((32, 32), flip=0.0)  # nothing random


@pytest.fixture(scope="module")
def batch(tiny):
    return next(train_batches(tiny().data, batch=4, seed=0))


@pytest.fixture(scope="module")
def model(tiny):
    return tiny().model


@pytest.fixture(scope="module")
def normless():
    return encdec.EncoderDecoder(
        encdec.Plain((4,)), encdec.FPN(strides=(1,), channels=4), encdec.Pixel(8)
    )


def follow(model, optimizer, batches, augment=STILL, task=TASK, remat=False):
    """The states before, between and after these batches, and the last losses."""
    step = jax.jit(
        partial(
            train_step,
            model=model,
            task=task,
            augment=augment,
            optimizer=optimizer,
            steps=8,
            remat=remat,
        )
    )
    states, losses = [create_state(model, optimizer, SHAPE, 0, 8)], {}
    for batch in batches:
        state, losses = step(states[-1], batch, jax.random.key(3))
        states.append(state)
    return states, losses


def moved(before, after):
    """Whether each leaf differs in any bit."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return [np.asarray(x).tobytes() != np.asarray(y).tobytes() for x, y in pairs]


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
def test_frozen_parts_and_their_statistics_keep_their_bits(frozen, model, batch):
    optimizer = Optimizer(rate=0.01, decay=0.5, freeze=(frozen,))
    (before, *_, after), _ = follow(model, optimizer, [batch] * 3)
    for part in ("encoder", "decoder", "head"):
        changes = moved(before.params[part], after.params[part])
        assert not any(changes) if part == frozen else all(changes)
    for part in ("encoder", "decoder"):
        changes = moved(before.stats["batch_stats"][part], after.stats["batch_stats"][part])
        assert not any(changes) if part == frozen else all(changes)


def test_two_accumulated_halves_equal_the_whole_batch(normless, batch):
    sgd = partial(Optimizer, "sgd", rate=0.1, schedule="constant", warmup=0.0)
    halves = [{name: rows[half] for name, rows in batch.items()} for half in (np.s_[:2], np.s_[2:])]
    (start, whole), _ = follow(normless, sgd(), [batch])
    (_, middle, gathered), _ = follow(normless, sgd(accumulate=2), halves)
    assert not any(moved(start.params, middle.params))
    assert any(moved(start.params, whole.params))
    for x, y in zip(jax.tree.leaves(whole.params), jax.tree.leaves(gathered.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_equals_one_by_hand(accumulate, normless, batch):
    optimizer = Optimizer("sgd", rate=0.1, ema=0.6, accumulate=accumulate)
    states, _ = follow(normless, optimizer, [batch] * (4 * accumulate))
    after_updates = [np.asarray(s.params["head"]["score"]["kernel"]) for s in states[::accumulate]]
    average = after_updates[0]
    for n, kernel in enumerate(after_updates[1:], 1):
        share = max(1 - 0.6, 1 / (1 + n))  # the plain mean at first
        average = (1 - share) * average + share * kernel
    last = states[-1]
    np.testing.assert_allclose(last.ema["head"]["score"]["kernel"], average, rtol=0, atol=1e-6)
    assert last.variables()["params"] is last.ema
    if accumulate == 2:  # between two updates it rests
        assert not any(moved(states[2].ema, states[3].ema))


def test_without_an_average_the_parameters_are_evaluated(normless):
    state = create_state(normless, Optimizer(), SHAPE, 0, 8)
    assert state.ema is None and state.variables()["params"] is state.params


def test_the_start_is_a_function_of_the_seed(normless):
    one, same, other = (create_state(normless, Optimizer(), SHAPE, seed, 8) for seed in (0, 0, 1))
    assert not any(moved(one.params, same.params)) and any(moved(one.params, other.params))
    assert one.step.dtype == jnp.int32


def test_augmentation_differs_by_step_and_repeats_with_the_key(normless, batch):
    still = Optimizer("sgd", rate=0.0)
    wild = encdec.Augment((32, 32), scale=(0.5, 2.0), rotate=30.0, colour=0.3)
    _, once = follow(normless, still, [batch], wild)
    _, again = follow(normless, still, [batch], wild)
    _, later = follow(normless, still, [batch] * 2, wild)
    assert once["loss"] == again["loss"] != later["loss"]


def test_a_batch_without_valid_pixels_changes_no_parameter(normless, batch):
    empty = batch | {"label": np.full_like(batch["label"], 255)}
    (before, after), losses = follow(normless, Optimizer("sgd", decay=0.0), [empty])
    assert losses["loss"] == 0 and not any(moved(before.params, after.params))


def test_losses_have_names_and_a_sum(normless, batch):
    task = encdec.Segment(8, losses=(("cross_entropy", 1.0), ("dice", 0.5)))
    _, losses = follow(normless, Optimizer(), [batch], task=task)
    assert set(losses) == {"loss", "cross_entropy", "dice"}
    assert float(losses["loss"]) == pytest.approx(float(losses["cross_entropy"] + losses["dice"]))


def test_evaluation_adds_integers_and_passes_over_filler_rows(normless, batch):
    task = encdec.Segment(8)
    variables = create_state(normless, Optimizer(), SHAPE, 0, 8).variables()
    step = jax.jit(partial(eval_step, model=normless, task=task))
    ready = {"image": batch["image"] / np.float32(255), "label": batch["label"].astype(np.int32)}
    filled = {name: rows.copy() for name, rows in ready.items()}
    filled["label"][2:] = 255
    sums, some = step(variables, ready), step(variables, filled)
    assert all(x.dtype == jnp.int32 for x in jax.tree.leaves(sums))
    assert sums["confusion"].sum() == 4 * 32 * 32 and some["confusion"].sum() == 2 * 32 * 32


def test_rematerialisation_changes_no_number(model, batch):
    kept, again = (follow(model, Optimizer("sgd"), [batch] * 2, remat=r) for r in (False, True))
    assert float(again[1]["loss"]) == pytest.approx(float(kept[1]["loss"]), rel=1e-5)
    for x, y in zip(jax.tree.leaves(kept[0][-1]), jax.tree.leaves(again[0][-1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "encoder",
    [encdec.ResNet((1, 1, 1, 1), width=4), encdec.VGG((1,) * 5, (4,) * 5), encdec.Plain()],
)
def test_rematerialisation_convolves_again_in_the_jaxpr(encoder, batch):
    strides = (1, 2, 4, 8, 16) if isinstance(encoder, encdec.Plain) else (2, 4, 8, 16, 32)
    decoder = encdec.UNet(strides, (4,) * 4)
    model = encdec.EncoderDecoder(encoder, decoder, encdec.Pixel(8))
    state = jax.eval_shape(lambda: create_state(model, Optimizer(), SHAPE, 0, 8))
    work = dict(model=model, task=TASK, augment=STILL, optimizer=Optimizer(), steps=8)

    def convolutions(remat):
        step = partial(train_step, **work, remat=remat)
        text = str(jax.make_jaxpr(step)(state, batch, jax.random.key(0)))
        return text.count("conv_general_dilated["), text.count("name=map")

    (once, names), (again, _) = convolutions(False), convolutions(True)
    forward = str(jax.make_jaxpr(model.apply)(state.variables(), batch["image"] / np.float32(255)))
    computed = forward.count("conv_general_dilated[")
    # Convolutions that end in a kept map need not be done again, all others do.
    assert names >= 9
    assert once + computed // 2 <= again <= once + computed
