"""One step under jit over a mesh, under pmap, and on one device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from encdec import parallel
from encdec.data.pipeline import train_batches
from encdec.errors import InputError
from encdec.train.loop import first_state
from encdec.train.optimizer import Optimizer
from encdec.train.step import train_step

SGD = Optimizer("sgd", rate=0.1, ema=0.9)


@pytest.fixture(scope="module")
def batches(tiny):
    """Three batches in which images, hence devices, have different numbers of valid pixels."""
    reader = train_batches(tiny().data, batch=4, seed=0)
    batches = [next(reader) for _ in range(3)]
    for batch in batches:
        batch["label"][0], batch["label"][1, :20] = 255, 255
    return batches


def drive(experiment, driver, batches):
    """The step, the last state, and state and losses after three batches, by path in the tree."""
    step = driver(
        partial(
            train_step,
            model=experiment.model,
            task=experiment.task,
            augment=experiment.augment,
            optimizer=experiment.optimizer,
            steps=10,
        )
    )
    state, key = first_state(experiment), parallel.replicate(jax.random.key(1))
    for batch in batches:
        state, losses = step(state, batch, key)
    return step, by_path((state, losses)), state


def by_path(tree):
    return {jax.tree_util.keystr(path): np.array(x) for path, x in jax.tree.leaves_with_path(tree)}


@pytest.fixture(scope="module")
def by_jit(tiny, batches):
    return drive(tiny(optimizer=SGD), parallel.jit, batches)


@pytest.fixture(scope="module")
def by_pmap(tiny, batches):
    return drive(tiny(optimizer=SGD), parallel.pmap, batches)


def assert_close(one, other):
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_allclose(leaf, other[path], rtol=0, atol=1e-5, err_msg=path)


def test_pmap_equals_jit(by_jit, by_pmap):
    assert_close(by_jit[1], by_pmap[1])


def test_four_devices_equal_one(tiny, batches, by_jit, monkeypatch):
    one = Mesh(np.array(jax.devices()[:1]), ("devices",))
    monkeypatch.setattr(parallel, "mesh", lambda here=False: one)
    _, alone, state = drive(tiny(optimizer=SGD), parallel.jit, batches)
    assert len(state.step.devices()) == 1
    assert_close(by_jit[1], alone)


def test_the_state_moved(tiny, by_jit):
    before, after = by_path((first_state(tiny(optimizer=SGD)),)), by_jit[1]
    for part in (".params", ".stats", ".ema"):
        moved = [
            np.abs(after[p] - x).max() for p, x in before.items() if p.startswith(f"[0]{part}")
        ]
        assert max(moved) > 1e-2  # so that 1e-5 is a small difference


@pytest.mark.parametrize("driver", ["by_jit", "by_pmap"])
def test_ten_steps_are_one_program(driver, request, tiny, batches):
    step, key = request.getfixturevalue(driver)[0], parallel.replicate(jax.random.key(1))
    state = first_state(tiny(optimizer=SGD))
    for i in range(10):
        state, _ = step(state, batches[i % 3], key)
    assert int(state.step) == 10 and step.programs() == 1
    assert step.memory(state, batches[0], key) > 0
    assert step.programs() == 1


@pytest.mark.parametrize("driver", ["by_jit", "by_pmap"])
def test_results_are_whole_on_every_device(driver, request):
    state = request.getfixturevalue(driver)[2]
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.is_fully_replicated and len(leaf.devices()) == 4


def test_reductions_and_keys_under_each_driver():
    def step(state, batch, key):
        total = parallel.psum(batch["x"].sum())
        draws = jax.random.uniform(parallel.device_key(key))
        mean = parallel.pmean(draws)
        return state, (total, mean, parallel.psum((draws - mean) ** 2))

    batch, key = {"x": np.arange(8.0, dtype=np.float32)}, jax.random.key(0)
    _, (total, _, spread) = parallel.jit(step)(jnp.zeros(()), batch, key)
    assert total == 28 and spread == 0
    _, (total, _, spread) = parallel.pmap(step)(jnp.zeros(()), batch, key)
    assert total == 28 and spread > 0  # every device has a key of its own


def test_without_a_driver_nothing_is_reduced():
    assert parallel.axis() is None
    assert parallel.psum({"x": 3}) == parallel.pmean({"x": 3}) == {"x": 3}


@pytest.mark.parametrize("batch", [0, -4, 6])
def test_a_batch_that_devices_cannot_share_is_refused(batch):
    with pytest.raises(InputError, match=f"multiple of the 4 devices; got {batch}"):
        parallel.check_batch(batch)
    parallel.check_batch(8)
