import jax
import jax.numpy as jnp
import pytest

from encdec.encoders import mobilenet
from encdec.encoders.mobilenet import (
    MobileNetV2,
    MobileNetV3,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from encdec.errors import InputError
from encdec.train.state import count

# torchvision's `features`.
PARAMETERS = {
    mobilenet_v2: 2_223_872,
    mobilenet_v3_small: 927_008,
    mobilenet_v3_large: 2_971_952,
}
CHANNELS = {
    mobilenet_v2: (16, 24, 32, 96, 1280),
    mobilenet_v3_small: (16, 16, 24, 48, 576),
    mobilenet_v3_large: (16, 24, 40, 112, 960),
}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_count_is_torchvisions(variant):
    _, variables = evaluate(variant())
    assert count(variables["params"]) == PARAMETERS[variant]


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(mobilenet).items() if name.startswith("mobilenet_")}
    assert set(PARAMETERS) == variants


@pytest.mark.parametrize("width, parameters", [(0.25, 238_112), (0.5, 687_680), (1.4, 4_315_776)])
def test_parameter_count_of_other_widths_is_torchvisions(width, parameters):
    _, variables = evaluate(mobilenet_v2(width))
    assert count(variables["params"]) == parameters


@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
@pytest.mark.parametrize("variant", CHANNELS)
def test_maps_round_up_at_every_size(variant, size):
    maps, _ = evaluate(variant(), size)
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c)
        for s, c in zip((2, 4, 8, 16, 32), CHANNELS[variant], strict=True)
    }


def test_without_its_last_layer_v2_has_the_320_channels_of_timm():
    maps, variables = evaluate(mobilenet_v2().clone(last=False))
    assert maps[32].shape == (1, 1, 1, 320)
    assert count(variables["params"]) == 1_811_712


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("variant", CHANNELS)
def test_dilation_keeps_channels_and_parameters(variant, output_stride):
    encoder = variant(output_stride=output_stride)
    maps, variables = evaluate(encoder, (64, 96))
    assert max(maps) == max(encoder.receptive_fields()) == output_stride
    assert maps[output_stride].shape[1:3] == (64 // output_stride, 96 // output_stride)
    assert maps[output_stride].shape[-1] == CHANNELS[variant][-1]
    assert count(variables["params"]) == PARAMETERS[variant]


@pytest.mark.parametrize(
    "variant, fields",
    [
        (mobilenet_v2, (7, 19, 59, 267, 491)),
        (mobilenet_v3_small, (3, 7, 31, 319, 639)),
        (mobilenet_v3_large, (7, 19, 99, 275, 595)),
    ],
)
def test_receptive_fields(variant, fields):
    assert variant().receptive_fields() == dict(zip((2, 4, 8, 16, 32), fields, strict=True))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(mobilenet_v3_small(), channels=channels)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (3, 3, channels, 16)


@pytest.mark.parametrize(
    "encoder, problem",
    [
        (MobileNetV2(width=0.0), "a width above 0 and a table of numbers of at least 1; got 0.0"),
        (MobileNetV2(()), r"numbers of at least 1; got 1.0 and \(\)"),
        (MobileNetV2(((1, 0, 1, 1),)), r"got 1.0 and \(\(1, 0, 1, 1\),\)"),
        (MobileNetV3(((3, 0, 8, True, "RE", 1),)), r"got \(\(3, 0, 8, True, 'RE', 1\),\)"),
        (MobileNetV3(()), r"at least 1; got \(\)"),
    ],
)
def test_a_table_that_makes_no_network_is_an_error(encoder, problem):
    with pytest.raises(InputError, match=problem):
        evaluate(encoder)
