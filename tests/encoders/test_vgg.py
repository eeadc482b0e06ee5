import jax
import jax.numpy as jnp
import pytest

from encdec.encoders import vgg
from encdec.encoders.vgg import VGG, vgg11, vgg13, vgg16, vgg19
from encdec.errors import InputError
from encdec.train.state import count

# torchvision's `features`, without and with BatchNorm.
PARAMETERS = {
    (vgg11, "none"): 9_220_480,
    (vgg13, "none"): 9_404_992,
    (vgg16, "none"): 14_714_688,
    (vgg19, "none"): 20_024_384,
    (vgg11, "batch"): 9_225_984,
    (vgg13, "batch"): 9_410_880,
    (vgg16, "batch"): 14_723_136,
    (vgg19, "batch"): 20_035_392,
}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.parametrize("variant, norm", PARAMETERS)
def test_parameter_count_is_torchvisions(variant, norm):
    _, variables = evaluate(variant(norm))
    assert count(variables["params"]) == PARAMETERS[variant, norm]


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(vgg).items() if name.startswith("vgg")}
    assert set(PARAMETERS) == {(v, norm) for v in variants for norm in ("none", "batch")}


@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1), (500, 375)])
def test_maps_are_the_five_pools_rounded_up(size):
    maps, _ = evaluate(vgg16(), size)
    channels = {2: 64, 4: 128, 8: 256, 16: 512, 32: 512}
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c) for s, c in channels.items()
    }


def test_receptive_fields_of_vgg16():
    assert vgg16().receptive_fields() == {2: 6, 4: 16, 8: 44, 16: 100, 32: 212}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(VGG((1,), (5,)), channels=channels)
    assert variables["params"]["conv1_1"]["conv"]["kernel"].shape == (3, 3, channels, 5)


def test_as_many_convs_as_channels_are_wanted():
    with pytest.raises(InputError, match=r"as many convs as channels; got \(1, 2\) and \(5,\)"):
        evaluate(VGG((1, 2), (5,)))
