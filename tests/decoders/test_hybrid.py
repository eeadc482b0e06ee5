import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.hybrid import Bilinear, PixelShuffle

MAP = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
HOW = {"channels": 6, "train": False}


@pytest.mark.parametrize("factor", [2, 4])
def test_bilinear_is_a_resize(factor):
    wanted = jax.image.resize(MAP, (2, 3 * factor, 4 * factor, 5), "bilinear")
    found = Bilinear().apply({}, MAP, factor=factor, **HOW)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_channels_become_the_pixels_of_a_block_row_by_row(factor):
    shuffle = PixelShuffle()
    _, variables = shuffle.init_with_output(jax.random.key(0), MAP, factor=factor, **HOW)
    kernel = np.zeros_like(variables["params"]["conv"]["kernel"])
    bias = np.arange(kernel.shape[-1], dtype=np.float32)
    found = shuffle.apply(
        {"params": {"conv": {"kernel": kernel, "bias": bias}}}, MAP, factor=factor, **HOW
    )
    block = bias.reshape(6, factor, factor).transpose(1, 2, 0)
    np.testing.assert_array_equal(found, np.tile(block, (2, 3, 4, 1)))


@pytest.mark.parametrize("start, equal", [("nearest", True), ("gaussian", False)])
def test_a_block_is_of_equal_pixels_at_the_start(start, equal):
    x, _ = PixelShuffle(start=start).init_with_output(jax.random.key(0), MAP, factor=2, **HOW)
    assert bool(jnp.allclose(x[:, ::2, ::2], x[:, 1::2, 1::2])) == equal
    assert 0.3 < x.std() < 3


@pytest.mark.parametrize("place", [Bilinear(), PixelShuffle()])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("cells", [1, 2, 5])
def test_reach_is_where_the_gradient_goes_in_the_worst_phase(place, factor, cells):
    x = jnp.ones((1, 1, 12, 2)) if isinstance(place, Bilinear) else jnp.ones((1, 12, 12, 2))
    wide = {"factor": factor, "channels": 2, "train": False}
    variables = place.init(jax.random.key(0), x, **wide)

    def part(x, first):
        y = place.apply(variables, x, **wide)
        shares = jnp.arange(1.0, y.shape[-1] + 1)
        return jnp.einsum("bhwc,c->", y[:, :, first : first + cells], shares)

    middle = 5 * factor
    seen = [
        int((jnp.abs(jax.grad(part)(x, middle + phase)).sum((0, 1, 3)) > 0).sum())
        for phase in range(factor)
    ]
    assert max(seen) == place.reach(cells, factor)
