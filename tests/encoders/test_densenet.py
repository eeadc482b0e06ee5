import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.encoders import densenet
from encdec.encoders.densenet import DenseNet, average_pool, densenet121
from encdec.errors import InputError
from encdec.train.state import count

# torchvision's trunks, without the last fully connected layer.
PARAMETERS = {densenet121: 6_953_856}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_count_is_torchvisions(variant):
    _, variables = evaluate(variant())
    assert count(variables["params"]) == PARAMETERS[variant]
    assert f"{PARAMETERS[variant]:,} parameters." in variant.__doc__


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(densenet).items() if name.startswith("densenet")}
    assert set(PARAMETERS) == variants


@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
def test_maps_round_up_at_every_size(size):
    maps, _ = evaluate(densenet121(), size)
    channels = {2: 64, 4: 256, 8: 512, 16: 1024, 32: 1024}
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c) for s, c in channels.items()
    }


def test_receptive_fields_of_densenet121():
    """Araujo et al. 2019, Table 1: 2071."""
    assert densenet121().receptive_fields() == {2: 7, 4: 59, 8: 255, 16: 1031, 32: 2071}


@pytest.mark.parametrize("norm, statistics", [("batch", True), ("group", False), ("none", False)])
def test_any_norm(norm, statistics):
    _, variables = evaluate(DenseNet((1, 1), 2, 4, norm))
    assert ("batch_stats" in variables) == statistics


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maps_have_the_dtype_of_the_computation_and_parameters_float32(dtype):
    maps, variables = evaluate(DenseNet((1, 1), 2, 4, dtype=dtype))
    assert {x.dtype for x in maps.values()} == {jnp.dtype(dtype)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(DenseNet((1,), 2, 4), channels=channels)
    assert variables["params"]["conv1"]["kernel"].shape == (7, 7, channels, 4)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 2)])
def test_averages_are_of_the_cells_there_are(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    rows, columns = (-(-n // 2) for n in size)
    expected = [
        [x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) for j in range(columns)]
        for i in range(rows)
    ]
    expected = np.array(expected).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fields", [{"layers": (0, 1)}, {"growth": 0}, {"width": 0}])
def test_fields_that_make_no_network_are_refused(fields):
    with pytest.raises(InputError, match="wants width, growth and layers of at least 1"):
        evaluate(DenseNet(**fields))
