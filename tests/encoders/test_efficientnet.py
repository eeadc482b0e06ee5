import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fcn import FCN
from encdec.encoders import efficientnet
from encdec.encoders.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_lite0,
)
from encdec.errors import InputError
from encdec.geometry import next_good_size
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.train.state import count

# torchvision's `features` without the last; of lite0 timm's.
PARAMETERS = {
    efficientnet_lite0: 2_958_848,
    efficientnet_b0: 3_595_388,
    efficientnet_b1: 6_101_024,
    efficientnet_b2: 7_202_562,
    efficientnet_b3: 10_103_336,
    efficientnet_b4: 16_742_216,
}
CHANNELS = {
    efficientnet_lite0: (32, 24, 40, 112, 320),
    efficientnet_b0: (32, 24, 40, 112, 320),
    efficientnet_b1: (32, 24, 40, 112, 320),
    efficientnet_b2: (32, 24, 48, 120, 352),
    efficientnet_b3: (40, 32, 48, 136, 384),
    efficientnet_b4: (48, 32, 56, 160, 448),
}
SMALL = ((1, 3, 8, 1, 1), (6, 3, 16, 2, 2))


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
    variants = {v for name, v in vars(efficientnet).items() if name.startswith("efficientnet_")}
    assert set(PARAMETERS) == set(CHANNELS) == variants


@pytest.mark.parametrize(
    "variant, size",
    [(variant, (64, 96)) for variant in CHANNELS]
    + [(v, size) for v in (efficientnet_lite0, efficientnet_b0) for size in ((63, 33), (1, 1))],
)
def test_maps_round_up_at_every_size(variant, size):
    maps, _ = evaluate(variant(), size)
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c)
        for s, c in zip((2, 4, 8, 16, 32), CHANNELS[variant], strict=True)
    }


def test_taps_choose_the_blocks_whose_maps_are_given():
    def seen(taps):
        encoder = EfficientNet(SMALL, 0.25, taps=taps)
        images = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 8, 8, 3)), jnp.float32)
        make = jax.jit(lambda x: encoder.init_with_output(jax.random.key(0), x, train=False)[0])
        return make(images), encoder.receptive_fields()

    last, fields = seen(())
    stem, stem_fields = seen(("stem",))
    within, within_fields = seen(("stage2_block1",))
    assert (fields, stem_fields, within_fields) == ({2: 7, 4: 19}, {2: 3, 4: 19}, {2: 7, 4: 11})
    for stride, (other, differs) in {2: (stem, True), 4: (stem, False)}.items():
        assert bool(np.abs(last[stride] - other[stride]).max() > 1e-3) == differs
    assert np.abs(last[2] - within[2]).max() == 0
    assert np.abs(last[4] - within[4]).max() > 1e-3


def test_without_taps_the_map_of_stride_2_is_timms():
    maps, _ = evaluate(efficientnet_b0().clone(taps=()))
    assert maps[2].shape == (1, 16, 16, 16)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_channels_and_parameters(output_stride):
    encoder = efficientnet_b0(output_stride=output_stride)
    maps, variables = evaluate(encoder, (64, 96))
    assert max(maps) == max(encoder.receptive_fields()) == output_stride
    assert maps[output_stride].shape == (1, 64 // output_stride, 96 // output_stride, 320)
    assert count(variables["params"]) == PARAMETERS[efficientnet_b0]


def test_receptive_fields():
    fields = {2: 3, 4: 19, 8: 67, 16: 339, 32: 851}
    assert efficientnet_b0().receptive_fields() == fields
    assert efficientnet_lite0().receptive_fields() == fields
    assert efficientnet_b4().receptive_fields() == {2: 3, 4: 39, 8: 151, 16: 711, 32: 1799}


def test_drop_path_is_off_unless_asked_for_and_grows_along_the_network():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(64, 4, 4, 3)), jnp.float32)
    table = ((1, 3, 8, 6, 1),)
    encoder = EfficientNet(table, 0.25, norm="none", squeeze=False, taps=())
    variables = encoder.init(jax.random.key(0), images, train=False)
    whole = encoder.apply(variables, images, train=True)  # needs no key
    np.testing.assert_array_equal(whole[2], encoder.apply(variables, images, train=False)[2])
    wild = encoder.clone(drop_path=1.0)
    _, state = wild.apply(
        variables,
        images,
        train=True,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    blocks = [state["intermediates"][f"stage1_block{i}"]["__call__"][0] for i in range(1, 7)]
    skipped = [
        float((np.abs(np.asarray(after - before)).max((1, 2, 3)) == 0).mean())
        for before, after in zip(blocks, blocks[1:], strict=False)
    ]
    np.testing.assert_allclose(skipped, np.arange(1, 6) / 6, atol=0.2)


@pytest.mark.parametrize(
    "encoder, problem",
    [
        (EfficientNet(padding=224), 'wants sides that 32 divides; got 33x64: .* padding="same"'),
        (EfficientNet(depth=0.0), "a width and a depth above 0 .* got 1.0, 0.0"),
        (EfficientNet(()), r"got 1.0, 1.0 and \(\)"),
        (EfficientNet(SMALL, taps=("stage3_block1",)), r"up to stage2_block2; got \['stage3_b"),
    ],
)
def test_fields_that_make_no_network_are_errors(encoder, problem):
    with pytest.raises(InputError, match=problem):
        evaluate(encoder, (33, 64))


@pytest.mark.parametrize("padding, good", [(224, (64, 96)), ("same", (33, 96))])
def test_the_padding_of_an_image_size_asks_for_sides_that_32_divides(padding, good):
    encoder = EfficientNet(padding=padding)
    model = EncoderDecoder(encoder, FCN(channels=2), Pixel(2, scores=True))
    assert next_good_size(model, (33, 96)) == good
