import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec import visualize_maps
from encdec.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


def walked(decoder, head, image=IMAGE):
    model = encdec.EncoderDecoder(encdec.Plain((4, 6, 8)), decoder, head)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 48, 3)))
    return model, variables, visualize_maps.walk(model, variables, image)


def shapes(levels):
    return {stride: maps.shape for stride, maps in levels.items()}


def test_the_path_has_a_map_of_every_level():
    _, _, maps = walked(encdec.UNet((1, 2, 4), (6, 5)), encdec.Pixel(3))
    assert shapes(maps["down"]) == {1: (32, 48, 4), 2: (16, 24, 6), 4: (8, 12, 8)}
    assert shapes(maps["path"]) == {1: (32, 48, 5), 2: (16, 24, 6), 4: (8, 12, 8)}
    assert shapes(maps["out"]) == {1: (32, 48, 5)}


def test_the_coarsest_level_of_the_path_is_its_lateral_and_of_a_pyramid_all_come_out():
    _, variables, maps = walked(encdec.FPN((1, 2, 4), 5), encdec.Merge(3, 4))
    assert shapes(maps["path"]) == shapes(maps["out"])
    conv = variables["params"]["decoder"]["lateral_s4"]["conv"]
    kernel, bias = (np.asarray(conv[name]) for name in ("kernel", "bias"))
    expected = maps["down"][4] @ kernel[0, 0] + bias
    np.testing.assert_allclose(maps["path"][4], expected, atol=1e-5)


def test_maps_are_those_that_make_the_logits():
    model, variables, maps = walked(encdec.FCN((1, 2), 3), encdec.Pixel(3, scores=True))
    logits = model.apply(variables, jnp.asarray(IMAGE[None] / np.float32(255)))["logits"][0]
    np.testing.assert_allclose(maps["path"][1], logits, atol=1e-6)


def test_like_cells_have_one_colour_and_unlike_ones_differ():
    features = np.zeros((4, 6, 5), np.float32)
    features[:2, :3], features[2:, 3:] = [1, 2, 3, 4, 5], [5, 1, 0, 2, 2]
    picture = visualize_maps.colours(features)
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    kinds = [picture[:2, :3], picture[2:, 3:], np.concatenate([picture[:2, 3:], picture[2:, :3]])]
    assert all((kind == kind[0, 0]).all() for kind in kinds)
    assert len({tuple(kind[0, 0]) for kind in kinds}) == 3


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_what_does_not_vary_is_grey(channels):
    picture = visualize_maps.colours(np.ones((3, 4, channels), np.float32))
    assert (picture == 128).all()
    features = np.zeros((2, 4, channels), np.float32)
    features[..., 0] = np.arange(8).reshape(2, 4)
    picture = visualize_maps.colours(features)
    assert (picture[..., 1:] == 128).all() and picture[..., 0].max() == 255


def test_colours_do_not_depend_on_scale_or_offset():
    features = np.random.default_rng(1).normal(size=(6, 7, 4)).astype(np.float32)
    first, second = (visualize_maps.colours(x) for x in (features, 8 * features + 2))
    assert abs(first.astype(int) - second).max() <= 1


def test_a_row_has_a_picture_for_each_stride_and_a_blank_where_there_is_none():
    maps = {2: np.zeros((4, 5, 6), np.float32), 4: np.zeros((2, 3, 6), np.float32)}
    assert [p.shape for p in visualize_maps.row(maps, (8, 4, 2))] == [
        (1, 1, 3),
        (2, 3, 3),
        (4, 5, 3),
    ]


def test_what_is_no_image_is_said():
    with pytest.raises(InputError, match="uint8"):
        walked(encdec.FCN((1, 2), 3), encdec.Pixel(3, scores=True), IMAGE / 255)
