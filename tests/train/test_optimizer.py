"""Rates, decay and parts, seen in the updates of a small tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.errors import InputError
from encdec.train.optimizer import Optimizer


@pytest.fixture
def params():
    layer = {"kernel": jnp.full((3, 3, 2, 2), 2.0), "bias": jnp.full(2, 2.0)}
    return {"encoder": layer | {"scale": jnp.full(2, 2.0)}, "decoder": layer, "head": layer}


def updates(optimizer, params, gradient, steps=10):
    """The first update for a gradient that is the same everywhere."""
    chain = optimizer.chain(params, steps)
    grads = jax.tree.map(lambda x: jnp.full_like(x, gradient), params)
    return chain.update(grads, chain.init(params), params)[0]


@pytest.mark.parametrize(
    "schedule, middle, end",
    [("cosine", 0.5, 0.0), ("poly", 0.5**0.9, 0.0), ("constant", 1.0, 1.0)],
)
def test_rates_rise_to_the_peak_and_fall_to_the_end(schedule, middle, end):
    rate = Optimizer(rate=0.3, schedule=schedule, warmup=0.2).rate_at(50)
    assert [float(rate(i)) for i in range(11)] == pytest.approx(
        [0.3 * (i + 1) / 11 for i in range(11)]
    )
    assert float(rate(30)) == pytest.approx(0.3 * middle)
    assert float(rate(50)) == pytest.approx(0.3 * end, abs=1e-7)
    falling = [float(rate(i)) for i in range(10, 51)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.paper(
    "FCN §4.3",
    says="doubled learning rate for biases; the release: no decay of them",
    does="`bias_rate=2`: twice the update; only kernels decay",
    differs="",
)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_move_twice_as_far_and_do_not_decay(params, name):
    optimizer = Optimizer(name, rate=0.1, schedule="constant", warmup=0.0, decay=0.5, bias_rate=2.0)
    still, moved = updates(optimizer, params, 0.0)["head"], updates(optimizer, params, 1.0)
    assert (still["bias"] == 0).all() and (still["kernel"] < 0).all()
    kernel = moved["head"]["kernel"] - still["kernel"]
    np.testing.assert_allclose(moved["head"]["bias"], 2 * kernel[0, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(moved["encoder"]["scale"], kernel[0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_without_warmup_the_first_rate_is_the_peak(schedule):
    assert float(
        Optimizer(rate=0.3, schedule=schedule, warmup=0.0).rate_at(50)(0)
    ) == pytest.approx(0.3)


@pytest.mark.paper(
    "FPN §5.1",
    says="learning rate 0.02 for 30,000 steps, then 0.002 for 10,000; §5.2: 60,000 and 20,000",
    does='`schedule="steps"` with `drops=(0.75,)`; `experiments/coco_fpn_rpn.py` has the rest',
    differs="",
)
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_rate_of_steps_falls_to_a_tenth(warmup):
    rate = Optimizer(rate=0.02, schedule="steps", drops=(0.75, 0.9), warmup=warmup).rate_at(1000)
    for step, wanted in ((100, 0.02), (749, 0.02), (750, 2e-3), (899, 2e-3), (900, 2e-4)):
        assert float(rate(step)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "fields", [{"drops": (0.5,)}, {"schedule": "steps"}, {"schedule": "steps", "drops": (1.5,)}]
)
def test_drops_go_with_the_schedule_of_steps(fields):
    with pytest.raises(InputError, match="drops between 0 and 1 go with the schedule steps"):
        Optimizer(**fields)


def test_the_schedule_counts_updates_not_steps():
    plain, gathered = Optimizer(), Optimizer(accumulate=4)
    at = range(26)
    assert [float(plain.rate_at(25)(i)) for i in at] == [
        float(gathered.rate_at(100)(i)) for i in at
    ]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_kernels_decay_and_biases_and_norms_do_not(name, params):
    optimizer = Optimizer(name, rate=0.1, schedule="constant", warmup=0.0, decay=0.5)
    for leaves in updates(optimizer, params, 0.0).values():
        for leaf, update in leaves.items():
            wanted = -0.1 * 0.5 * 2.0 if leaf == "kernel" else 0.0
            np.testing.assert_allclose(update, jnp.full_like(update, wanted), rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_rates_by_part_scale_updates_decay_included(name, params):
    common = dict(rate=0.1, schedule="constant", warmup=0.0, decay=0.5)
    plain = updates(Optimizer(name, **common), params, 1.0)
    parts = updates(Optimizer(name, **common, rates=(("encoder", 0.1), ("head", 3.0))), params, 1.0)
    for part, factor in (("encoder", 0.1), ("decoder", 1.0), ("head", 3.0)):
        for leaf, update in parts[part].items():
            np.testing.assert_allclose(update, factor * plain[part][leaf], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_parts_get_no_update(name, params):
    optimizer = Optimizer(name, decay=0.5, freeze=("encoder", "head"), rates=(("decoder", 2.0),))
    found = updates(optimizer, params, 1.0)
    assert all((x == 0).all() for x in jax.tree.leaves([found["encoder"], found["head"]]))
    assert all((x != 0).all() for x in jax.tree.leaves(found["decoder"]))


@pytest.mark.parametrize("freeze", [(), ("encoder",)])
def test_the_gradient_of_what_moves_is_clipped_to_the_norm(freeze, params):
    optimizer = Optimizer(
        "sgd", rate=1.0, schedule="constant", warmup=0.0, decay=0.0, clip=0.5, freeze=freeze
    )
    found = jax.tree.leaves(updates(optimizer, params, 7.0))
    assert float(sum((x**2).sum() for x in found)) ** 0.5 == pytest.approx(0.5)
    small = updates(optimizer, params, 1e-4)
    np.testing.assert_allclose(small["head"]["bias"], -1e-4, rtol=1e-6)


def test_sgd_has_momentum(params):
    chain = Optimizer(
        "sgd", rate=1.0, schedule="constant", warmup=0.0, decay=0.0, momentum=0.5
    ).chain(params, 10)
    grads, state = jax.tree.map(jnp.ones_like, params), chain.init(params)
    for wanted in (-1, -1.5, -1.75):
        found, state = chain.update(grads, state, params)
        np.testing.assert_allclose(found["head"]["bias"], wanted)


def test_only_every_nth_step_updates_by_the_mean_gradient(params):
    chain = Optimizer(
        "sgd", rate=1.0, schedule="constant", warmup=0.0, decay=0.0, accumulate=3
    ).chain(params, 9)
    state = chain.init(params)
    for gradient, wanted in ((1, 0), (2, 0), (6, -3)):
        grads = jax.tree.map(lambda x, g=gradient: jnp.full_like(x, g), params)
        found, state = chain.update(grads, state, params)
        np.testing.assert_allclose(found["head"]["bias"], wanted, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"freeze": ("backbone",)}, {"rates": (("backbone", 0.1),)}])
def test_a_part_that_the_model_has_not_is_named(wrong, params):
    with pytest.raises(InputError, match="'decoder', 'encoder', 'head'.*got 'backbone'"):
        Optimizer(**wrong).chain(params, 10)
