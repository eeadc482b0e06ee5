import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.encoders.alexnet import AlexNet, normalise, pool
from encdec.train.state import count


def evaluate(encoder, *size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.paper(
    "FCN §4.1",
    says="FCN-AlexNet: receptive field 355, stride 32 (Table 1)",
    does="355 for fc7, which lies at 32i + 13",
    differs="",
)
def test_receptive_field_and_place_of_fcn_alexnets_trunk():
    assert AlexNet().receptive_fields() == {32: 355}
    assert AlexNet().origins() == {32: 13}


@pytest.mark.parametrize("size, cells", [((1, 64), (1, 3)), ((227, 500), (8, 16))])
def test_a_cell_every_32_pixels(size, cells):
    maps, _ = evaluate(AlexNet((2,) * 5, (3, 3)), *size)
    assert {s: x.shape for s, x in maps.items()} == {32: (1, *cells, 3)}


@pytest.mark.paper(
    "FCN §4.1",
    says="AlexNet's second, fourth and fifth convolutions in two groups",
    does="kernels over half of the channels: 2,334,080 weights in the five",
    differs="",
)
def test_convolutions_in_two_groups():
    params = evaluate(AlexNet(), 8, 8)[1]["params"]
    inputs = {name: params[name]["kernel"].shape[2] for name in params}
    assert inputs == {
        "conv1": 3, "conv2": 48, "conv3": 256, "conv4": 192, "conv5": 192, "fc6": 256, "fc7": 4096
    }  # fmt: skip
    assert sum(count(params[f"conv{i}"]) for i in range(1, 6)) == 2_334_080


@pytest.mark.parametrize("size", [7, 8, 9, 10])
def test_pooling_rounds_up(size):
    x = jnp.arange(float(size * size)).reshape(1, size, size, 1)
    pooled = pool(x)[0, :, :, 0]
    rows = [min(2 * i + 2, size - 1) for i in range(-(-(size - 3) // 2) + 1)]
    np.testing.assert_array_equal(pooled, x[0, :, :, 0][np.ix_(rows, rows)])


def test_response_normalisation_by_five_channels():
    x = 100 * np.random.default_rng(0).normal(size=(1, 2, 3, 7))
    wanted = np.empty_like(x)
    for c in range(7):
        energy = (x[..., max(c - 2, 0) : c + 3] ** 2).sum(-1)
        wanted[..., c] = x[..., c] / (1 + 1e-4 / 5 * energy) ** 0.75
    ours = normalise(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, wanted, rtol=1e-4)
    assert np.abs(ours - x).max() > 10
