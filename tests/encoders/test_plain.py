import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.encoders.plain import Plain
from encdec.errors import InputError


def shapes(encoder, height, width, channels=1):
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    maps, _ = jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )
    return {stride: x.shape[1:] for stride, x in maps.items()}


def test_figure_1_sizes():
    sizes = {s: shape[0] for s, shape in shapes(Plain(padded=False), 572, 572).items()}
    assert sizes == {1: 568, 2: 280, 4: 136, 8: 64, 16: 28}


@pytest.mark.parametrize("size", [(64, 48), (63, 49), (33, 1), (1, 1)])
def test_padded_maps_round_up_at_every_size(size):
    for s, (h, w, c) in shapes(Plain((4, 5, 6, 7)), *size).items():
        assert (h, w, c) == (-(-size[0] // s), -(-size[1] // s), {1: 4, 2: 5, 4: 6, 8: 7}[s])


@pytest.mark.paper(
    "U-Net §2",
    says="two 3x3 convolutions a level, 64 to 1024 channels, doubled at each",
    does="weights of each of the ten: 640, 36,928, … 9,438,208",
    differs="",
)
def test_parameters_of_figure_1():
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    params = jax.eval_shape(
        lambda x: Plain().init(jax.random.key(0), x, train=False)["params"], images
    )
    by_level = [sum(x.size for x in jax.tree.leaves(params[f"conv{i}_s{2**level}"]))
                for level in range(5) for i in (1, 2)]  # fmt: skip
    assert by_level == [
        640, 36_928, 73_856, 147_584, 295_168, 590_080, 1_180_160, 2_359_808, 4_719_616, 9_438_208
    ]  # fmt: skip


def test_good_sizes_of_the_unpadded_net_are_16k_plus_60():
    encoder = Plain(padded=False)
    good = [n for n in range(1, 700) if encoder.next_good_size(n) == n]
    assert good == [16 * k + 60 for k in range(8, 40)]
    assert all(encoder.next_good_size(n) == min(g for g in good if g >= n) for n in range(1, 640))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_good_sizes_are_those_where_every_pooling_sees_an_even_map(depth):
    encoder = Plain((4,) * depth, padded=False)

    def even(size):
        for _ in range(depth - 1):
            size -= 4
            if size % 2:
                return False
            size //= 2
        return size >= 8

    for size in range(1, 150):
        assert (encoder.next_good_size(size) == size) == even(size)


@pytest.mark.parametrize(
    "height, width, names", [(570, 572, "height 570"), (572, 573, "width 573")]
)
def test_a_size_that_does_not_fit_names_the_next_good_one(height, width, names):
    good = 572 if height == 570 else 588
    with pytest.raises(InputError, match=f"{names} .* next good size is {good}"):
        shapes(Plain(padded=False), height, width)


def test_every_size_is_good_when_padded():
    assert [Plain().next_good_size(n) for n in (1, 17, 571)] == [1, 17, 571]


def test_receptive_fields():
    assert Plain().receptive_fields() == {1: 5, 2: 14, 4: 32, 8: 68, 16: 140}


def test_maps_are_features_before_pooling_and_after_relu():
    encoder = Plain((2, 3))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(1, 6, 7, 3)), jnp.float32)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
    maps = jax.jit(lambda x: encoder.apply(variables, x, train=False))(images)
    assert maps[1].shape == (1, 6, 7, 2) and maps[2].shape == (1, 3, 4, 3)
    assert min(float(x.min()) for x in maps.values()) == 0
    assert set(variables["params"]) == {"conv1_s1", "conv2_s1", "conv1_s2", "conv2_s2"}


@pytest.mark.paper(
    "U-Net §3.1",
    says="dropout at the end of the contracting path",
    does="half of the values of the last two levels; the skip of the last but one carries it, too",
    differs="",
)
def test_dropout_at_the_end_of_the_path_is_in_the_skip_too():
    encoder, images = Plain((8, 8, 8), dropout=0.5), jnp.ones((1, 32, 32, 1))
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1), shapes)
    still = encoder.apply(variables, images, train=False)
    maps = encoder.apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(maps[1], still[1])
    for s in (2, 4):
        assert abs((maps[s] == 0).mean() - 0.5) < 0.06
    np.testing.assert_allclose(maps[2][maps[2] > 0], 2 * still[2][maps[2] > 0], rtol=1e-5)
    # What goes on down has been dropped as well: the next level is not twice, or none, of itself.
    share = maps[4][maps[4] > 0] / still[4][maps[4] > 0]
    assert np.asarray(share).std() > 0.01


def test_of_a_colour_image_a_grey_path_sees_the_mean():
    encoder = Plain((2,), grey=True)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 4, 4, 3)), jnp.float32)
    variables = encoder.init(jax.random.key(0), images, train=False)
    assert variables["params"]["conv1_s1"]["conv"]["kernel"].shape[2] == 1
    grey = images.mean(-1, keepdims=True)
    colour, mean = (encoder.apply(variables, x, train=False)[1] for x in (images, grey))
    np.testing.assert_array_equal(colour, mean)
