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


@pytest.mark.slow
def test_ratios_are_to_the_first_contender_round_by_round():
    from benchmarks.timing import paired

    def sleeper(seconds):
        return lambda: time.sleep(seconds)

    found = paired({"slow": sleeper(0.02), "fast": sleeper(0.01)}, rounds=3, at_least_s=0.0)
    assert found["slow"].ratio == 1 and found["slow"].rounds == 3
    assert found["fast"].ratio < 1 and found["fast"].fastest_ms <= found["fast"].median_ms
    assert found["fast"].cpu_ms < found["fast"].median_ms  # sleeping is no work


@pytest.mark.filterwarnings("default")  # the peers' own
def test_networks_with_their_peers_weights_have_their_logits():
    peers_or_skip()
    import torch

    from benchmarks.networks import NETWORKS
    from benchmarks.port import difference, pixels, ported
    from benchmarks.steps import torch_images

    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    for name, pair in NETWORKS.items():
        net = pair.theirs()
        variables = ported(pair.ours, net, images)
        assert count(variables["params"]) == sum(p.numel() for p in net.parameters()), name
        with torch.inference_mode():
            theirs = net.eval()(torch_images(pixels(pair.ours, images)))
        ours = jax.jit(pair.ours.apply)(variables, images)["logits"]
        assert difference(ours, theirs) < 1e-4, name


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


def test_encdec_and_cv2_sample_alike():
    if not find_spec("cv2"):
        pytest.skip("pip install -e '.[bench]' for cv2")
    from benchmarks import data

    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.integers(0, 256, (64, 64, 3)), jnp.float32)
    image = np.asarray(jax.image.resize(coarse, (*data.CANVAS, 3), "bilinear")).astype(np.uint8)
    label = rng.integers(0, data.CLASSES, (64, 64)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    matrix = data.drawn(rng)[1]
    centre = np.array([150, 300], np.float32)  # a part of the crop is outside
    example = {"image": image, "label": label, "size": np.int32(data.CANVAS)}
    moved = jax.tree.map(jnp.asarray, (example, centre, matrix))
    ours = data.AUGMENT._warp(*moved, jax.random.key(0))
    images, labels = data.remapped(image[None], label[None], [(centre, matrix)])
    naive = data.mapped(*map(jnp.asarray, (image, label, centre, matrix)))
    # cv2 rounds to a grey level (1/2), and may round places to 1/32 pixel: that is under 1 level
    # where neighbours differ by under 32, as they do in an image enlarged eight times.
    np.testing.assert_allclose(ours["image"], images[0], atol=1.5 / 255)
    np.testing.assert_allclose(ours["image"], naive[0], atol=1e-4)
    assert (ours["label"] == 255).any() and (ours["label"] != 255).any()
    assert (ours["label"] == labels[0]).mean() > 0.995  # places halfway between two pixels
    assert (ours["label"] == naive[1]).mean() > 0.995


def test_the_memory_that_steps_add_is_their_peak():
    from benchmarks.memory import MIB, added, peak_was_reset

    if not peak_was_reset():
        pytest.skip("only on Linux may a process set its own peak back, and not in every sandbox")
    kept = np.ones(128 * MIB, np.uint8)  # freed before: a higher peak that does not count
    del kept
    found, source = added(lambda: np.ones(64 * MIB, np.uint8).sum())
    assert source == "VmHWM" and 63 * MIB < found < 72 * MIB


@pytest.mark.filterwarnings("default")
def test_a_python_loop_over_the_parts_gives_the_walks_labels(monkeypatch):
    if not all(map(find_spec, ("torch", "monai"))):
        pytest.skip("pip install -e '.[bench]' for the peers")
    from benchmarks import tiles

    image = np.random.default_rng(0).integers(0, 256, (640, 48, 3), np.uint8)
    (walk, *cost), (loop, *same) = (f(image, 0.008) for f in (tiles.walked, tiles.looped))
    assert cost == same and cost[0] > 1
    labels = walk()
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, loop())
