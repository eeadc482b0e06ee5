"""The benchmarks compare equal work."""

import time
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.train.state import count


def peers_or_skip():
    if not all(map(find_spec, ("torch", "segmentation_models_pytorch"))):
        pytest.skip("pip install -e '.[bench]' for the peers")


def test_ratios_are_to_the_first_contender_round_by_round():
    from benchmarks.timing import paired

    def sleeper(seconds):
        return lambda: time.sleep(seconds)

    found = paired({"slow": sleeper(0.02), "fast": sleeper(0.01)}, rounds=3, at_least_s=0.0)
    assert found["slow"].ratio == 1 and found["slow"].rounds == 3
    assert found["fast"].ratio < 1 and found["fast"].fastest_ms <= found["fast"].median_ms
    assert found["fast"].cpu_ms < found["fast"].median_ms  # sleeping is no work


@pytest.mark.filterwarnings("default")  # the peers' own
def test_networks_have_as_many_parameters_as_their_peers():
    peers_or_skip()
    from benchmarks.networks import NETWORKS

    images = np.zeros((1, 64, 64, 3), np.float32)
    for name, pair in NETWORKS.items():
        ours = jax.eval_shape(pair.ours.init, jax.random.key(0), images)["params"]
        assert count(ours) == sum(p.numel() for p in pair.theirs().parameters()), name


@pytest.mark.filterwarnings("default")
def test_linens_layers_compute_the_same():
    peers_or_skip()
    from benchmarks.networks import NETWORKS
    from benchmarks.steps import linen_layers

    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3), np.float32))
    model = NETWORKS["U-Net 32"].ours
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def both():
        outputs = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jax.tree.leaves(outputs)

    ours = jax.jit(both)()
    with linen_layers():
        theirs = jax.jit(lambda: both())()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
