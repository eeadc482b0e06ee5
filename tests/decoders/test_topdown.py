import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN, Lateral, Nearest
from encdec.decoders.hybrid import Bilinear, PixelShuffle
from encdec.decoders.topdown import Copy, TopDown
from encdec.decoders.unet import DoubleConv, UNet
from encdec.errors import InputError

CHANNELS = {1: 2, 2: 3, 4: 4, 8: 5, 16: 6, 32: 7}


def pyramid(*size, strides=CHANNELS):
    """Shapes of an encoder's maps of an image of that size."""
    return {
        s: jax.ShapeDtypeStruct((1, -(-size[0] // s), -(-size[1] // s), CHANNELS[s]), jnp.float32)
        for s in strides
    }


def evaluate(decoder, maps):
    return jax.eval_shape(
        lambda m: decoder.init_with_output(jax.random.key(0), m, train=False), maps
    )


def copying(**fields):
    """The bare walk: nothing has weights."""
    defaults = {
        "strides": (1, 2, 4),
        "channels": 1,
        "lateral": Copy(),
        "upsample": Nearest(),
        "merge": "add",
        "refine": Copy(),
        "output": Copy(),
        "levels": "every",
    }
    return TopDown(**(defaults | fields))


def numbers(size=8):
    """One-channel maps of 1, 10 and 100."""
    return {
        s: jnp.full((1, size // s, size // s, 1), v) for s, v in ((1, 1.0), (2, 10.0), (4, 1e2))
    }


@pytest.mark.parametrize(
    "merge, expected",
    [
        ("add", {1: [111], 2: [110], 4: [100]}),
        ("concatenate", {1: [100, 10, 1], 2: [100, 10], 4: [100]}),
        ("skip", {1: [1], 2: [10], 4: [100]}),
        ("top", {1: [100], 2: [100], 4: [100]}),
    ],
)
def test_what_each_merge_carries(merge, expected):
    maps = copying(merge=merge).apply({}, numbers(), train=False)
    assert {s: x[0, 0, 0].tolist() for s, x in maps.items()} == expected
    assert all((x == x[:, :1, :1]).all() for x in maps.values())


def test_the_finest_level_only():
    maps = copying(levels="finest").apply({}, numbers(), train=False)
    assert list(maps) == [1] and maps[1][0, 0, 0] == 111


def test_below_the_smallest_stride_maps_are_only_upsampled():
    maps = copying(strides=(2, 4), finest=1).apply({}, numbers(), train=False)
    assert {s: x[0, 0, 0].tolist() for s, x in maps.items()} == {1: [110], 2: [110], 4: [100]}
    assert maps[1].shape == (1, 8, 8, 1)


def test_strides_may_leave_levels_out():
    maps = copying(strides=(1, 4)).apply({}, numbers(), train=False)
    assert {s: x[0, 0, 0].tolist() for s, x in maps.items()} == {1: [101], 4: [100]}
    assert maps[1].shape == (1, 8, 8, 1)


def test_order_of_strides_and_of_maps_does_not_matter():
    maps = dict(sorted(numbers().items(), reverse=True))
    out = copying(strides=(4, 1, 2)).apply({}, maps, train=False)
    assert out[1][0, 0, 0] == 111 and out[4][0, 0, 0] == 100


HYBRIDS = {
    "fcn": FCN(channels=8),
    "unet": UNet((2, 4, 8, 16, 32), (16, 12, 8, 4)),
    "unet to stride 1": UNet((2, 4, 8, 16, 32), (16, 12, 8, 4, 2), finest=1),
    "fpn": FPN(channels=8),
    "unet that adds": UNet((4, 8, 16, 32), 8, lateral=Lateral(), merge="add"),
    "fpn that concatenates": FPN(channels=8, merge="concatenate"),
    "fpn without top-down": FPN(channels=8, merge="skip"),
    "fpn without lateral": FPN(channels=8, merge="top"),
    "fpn, finest only": FPN(channels=8, levels="finest"),
    "fpn with up-convolutions": FPN(channels=8, upsample=UNet().upsample, refine=DoubleConv()),
    "unet on every level": UNet((4, 8, 16, 32), (16, 12, 8), levels="every", output=FPN().output),
    "unet without skips": UNet((2, 4, 8, 16, 32), 8, merge="top"),
    "fcn of nearest": FCN(channels=8, upsample=Nearest()),
    "fpn of bilinear": FPN(channels=8, upsample=Bilinear()),
    "fpn that shuffles": FPN(channels=8, upsample=PixelShuffle()),
    "one level": FCN((32,), 8),
}


@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
@pytest.mark.parametrize("name", HYBRIDS)
def test_maps_of_any_walk_round_up_at_every_size(name, size):
    decoder = HYBRIDS[name]
    maps, _ = evaluate(decoder, pyramid(*size))
    assert sorted(maps) == list(decoder.outputs())
    for s, x in maps.items():
        # Below the encoder's strides nothing says whether the image was odd: the head crops.
        known = max(s, min(decoder.strides))
        expected = tuple(-(-n // known) * known // s for n in size)
        assert x.shape[1:3] == expected


@pytest.mark.parametrize("merge, absent", [("skip", "upsample"), ("top", "lateral")])
def test_severed_paths_have_no_weights(merge, absent):
    decoder = FPN(channels=8, merge=merge, upsample=UNet().upsample)
    _, variables = evaluate(decoder, pyramid(64, 64))
    names = {n for n in variables["params"] if n.startswith(absent)}
    assert names == ({"lateral_s32"} if absent == "lateral" else set())


def test_weights_are_named_by_place_and_stride():
    _, variables = evaluate(UNet((1, 2), 4, lateral=Lateral()), pyramid(8, 8))
    assert set(variables["params"]) == {"lateral_s1", "lateral_s2", "upsample_s1", "refine_s1"}


def test_a_stride_that_the_encoder_lacks_is_an_error():
    with pytest.raises(InputError, match=r"FPN needs .* lacks \[4\]: it has \[8, 16, 32\]"):
        evaluate(FPN(), pyramid(64, 64, strides=(8, 16, 32)))


@pytest.mark.parametrize("channels", [(8, 8), (8, 8, 8, 8)])
def test_the_wrong_number_of_widths_is_an_error(channels):
    with pytest.raises(InputError, match="UNet has 3 levels below stride 32"):
        evaluate(UNet((4, 8, 16, 32), channels), pyramid(64, 64))


def test_no_width_at_all_is_an_error():
    with pytest.raises(InputError, match="0 levels below stride 8"):
        evaluate(UNet((8,), ()), pyramid(64, 64))


@pytest.mark.parametrize("decoder", [FCN(channels=0), UNet((4, 8, 16), (4, 0)), FPN(channels=-1)])
def test_zero_classes_or_channels_are_an_error(decoder):
    with pytest.raises(InputError, match="channels of at least 1; got"):
        evaluate(decoder, pyramid(64, 64))


def test_widths_go_from_coarse_to_fine():
    assert UNet((2, 4, 8), (7, 6, 5), finest=1).walk() == [(8, 7), (4, 7), (2, 6), (1, 5)]


def test_adding_unequal_channels_is_an_error():
    with pytest.raises(InputError, match='"add" needs equal channels; got 5 from above and 4'):
        evaluate(UNet((4, 8), 5, merge="add"), pyramid(64, 64))


def test_a_coarser_map_that_is_a_row_too_large_loses_its_last():
    """Odd sizes round up on the way down: row 0 must stay above row 0."""
    maps = {1: jnp.zeros((1, 5, 3, 1)), 2: jnp.arange(6.0).reshape(1, 3, 2, 1)}
    x = copying(strides=(1, 2)).apply({}, maps, train=False)[1][0, :, :, 0]
    expected = np.arange(6.0).reshape(3, 2).repeat(2, 0).repeat(2, 1)[:5, :3]
    np.testing.assert_array_equal(x, expected)


def test_a_skip_larger_than_the_unpadded_path_loses_its_border_evenly():
    maps = {
        1: jnp.arange(10.0)[None, :, None, None] * jnp.ones((1, 1, 10, 1)),
        2: jnp.zeros((1, 3, 3, 1)),
    }
    x = copying(strides=(1, 2)).apply({}, maps, train=False)[1]
    np.testing.assert_array_equal(x[0, :, 0, 0], [2, 3, 4, 5, 6, 7])


def test_refine_feeds_the_path_and_output_does_not():
    """With identity kernels but biases of 1: only a refinement's bias climbs."""
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    conv = {"conv": {"kernel": kernel, "bias": jnp.ones(1)}}
    smooth = FPN().output
    outside = copying(output=smooth).apply(
        {"params": {f"output_s{s}": conv for s in (1, 2, 4)}}, numbers(), train=False
    )
    assert {s: x[0, 0, 0, 0].item() for s, x in outside.items()} == {1: 112, 2: 111, 4: 101}
    inside = copying(refine=smooth).apply(
        {"params": {f"refine_s{s}": conv for s in (1, 2)}}, numbers(), train=False
    )
    assert {s: x[0, 0, 0, 0].item() for s, x in inside.items()} == {1: 113, 2: 111, 4: 100}
