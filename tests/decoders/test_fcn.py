import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fcn import FCN
from encdec.layers import bilinear_kernel

CHANNELS = {8: 3, 16: 4, 32: 5}


def pyramid(seed=0, size=(4, 5)):
    rng = np.random.default_rng(seed)
    return {
        s: jnp.asarray(rng.normal(size=(1, size[0] * 32 // s, size[1] * 32 // s, c)), jnp.float32)
        for s, c in CHANNELS.items()
    }


def start(decoder, maps):
    init = jax.jit(lambda m: decoder.init(jax.random.key(0), m, train=False)["params"])
    return init(maps)  # the decoder's own outputs are dropped from the program


@pytest.mark.parametrize("strides", [(32,), (16, 32), (8, 16, 32)])
def test_every_score_is_zero_at_the_start_and_only_score_layers_learn(strides):
    decoder, maps = FCN(strides, channels=6), pyramid()
    params = start(decoder, maps)

    def total(params, maps):
        out = decoder.apply({"params": params}, maps, train=True)
        (scores,) = out.values()
        return scores.sum(), (out, scores)

    grads, (out, scores) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, maps)
    assert list(out) == [min(strides)] and scores.shape[-1] == 6
    assert not scores.any()
    for name, layer in grads[0].items():
        learns = np.abs(layer["conv"]["kernel"]).max() > 0
        assert learns == name.startswith("lateral"), name
    assert not any(np.abs(g).max() for g in jax.tree.leaves(grads[1]))  # nor the encoder


def cascade(strides, size=9):
    """Scores from a single 1 in the middle of the coarsest map, in one channel."""
    decoder = FCN(strides, channels=1)
    finest = min(strides)
    maps = {s: jnp.zeros((1, size * 32 // s, size * 32 // s, 1)) for s in strides}
    maps[32] = maps[32].at[0, size // 2, size // 2].set(1)
    params = start(decoder, maps)
    params["lateral_s32"]["conv"]["kernel"] = jnp.ones((1, 1, 1, 1))
    return np.asarray(decoder.apply({"params": params}, maps, train=False)[finest][0, :, :, 0])


def test_the_cascade_of_two_doublings_is_smoother_than_one_quadrupling():
    doubled = [0.0625, 0.1875, 0.375, 0.625, 0.75, 0.75, 0.625, 0.375, 0.1875, 0.0625]
    square = cascade((8, 16, 32))
    rows = np.flatnonzero(square.any(1))
    np.testing.assert_array_equal(rows, np.arange(13, 23))  # 18 - 5 … 18 + 5: about its cell
    np.testing.assert_allclose(square[13:23, 13:23], np.outer(doubled, doubled), atol=1e-6)
    once = [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125]
    square = cascade((8, 32))
    np.testing.assert_allclose(square[14:22, 14:22], np.outer(once, once), atol=1e-6)
    np.testing.assert_allclose(square.sum(), 16, rtol=1e-6)


def test_deconvolutions_start_bilinear_without_bias():
    params = start(FCN(channels=2), pyramid())
    for stride in (8, 16):
        conv = params[f"upsample_s{stride}"]["conv"]
        assert set(conv) == {"kernel"}
        expected = bilinear_kernel(4)[:, :, None, None] * np.eye(2)[None, None]
        np.testing.assert_allclose(conv["kernel"], expected)


def test_scores_are_added():
    """Linear: what FCN-8s gives is the sum of what each scored map alone would give."""
    decoder, maps = FCN(channels=2), pyramid()
    params = start(decoder, maps)
    rng = np.random.default_rng(3)
    for s in CHANNELS:
        params[f"lateral_s{s}"]["conv"]["kernel"] = rng.normal(size=(1, 1, CHANNELS[s], 2)).astype(
            np.float32
        )
    apply = jax.jit(lambda m: decoder.apply({"params": params}, m, train=False)[8])
    alone = [apply({t: x * (s == t) for t, x in maps.items()}) for s in CHANNELS]
    assert min(np.abs(x).max() for x in alone) > 0.1
    np.testing.assert_allclose(apply(maps), sum(alone), atol=1e-5)
