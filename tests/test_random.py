"""Initial parameters follow from the seed alone, and are as random as they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.random import initial_key

KNOWN = [53094355, 1108535717, 1943550966, 2737883501]


def test_a_seed_gives_these_bits_everywhere():
    key = initial_key(0)
    bits = jax.random.bits(jax.random.fold_in(key, 7), (4,))
    assert bits.tolist() == KNOWN
    assert jax.jit(lambda key: jax.random.bits(jax.random.fold_in(key, 7), (4,)))(
        key
    ).tolist() == KNOWN  # fmt: skip


def test_normals_are_normal():
    x = np.asarray(jax.random.normal(initial_key(3), (1 << 20,)), np.float64)
    assert abs(x.mean()) < 0.005 and abs(x.std() - 1) < 0.005
    assert abs((x**3).mean()) < 0.02 and abs((x**4).mean() - 3) < 0.05
    for lag in (1, 2, 64, 1024):
        assert abs((x[lag:] * x[:-lag]).mean()) < 0.005


def test_every_bit_is_set_half_of_the_time():
    bits = np.asarray(jax.random.bits(initial_key(1), (1 << 16,)))
    shares = [((bits >> i) & 1).mean() for i in range(32)]
    np.testing.assert_allclose(shares, 0.5, atol=0.01)


@pytest.mark.parametrize("pair", ["seeds", "folds", "splits"])
def test_keys_draw_apart(pair):
    keys = {
        "seeds": [initial_key(i) for i in (0, 1)],
        "folds": [jax.random.fold_in(initial_key(0), i) for i in (0, 1)],
        "splits": list(jax.random.split(initial_key(0))),
    }[pair]
    a, b = (np.asarray(jax.random.normal(key, (1 << 16,))) for key in keys)
    assert abs((a * b).mean()) < 0.02 and (a != b).mean() > 0.999


def test_it_splits_and_maps_like_any_key():
    keys = jax.random.split(initial_key(0), (2, 3))
    assert keys.shape == (2, 3)
    mapped = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys[0])
    alone = jnp.stack([jax.random.uniform(key, (4,)) for key in keys[0]])
    assert (mapped == alone).all() and len(np.unique(mapped)) == 12
