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
