import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from encdec.encoders.inverted import (
    ConvNorm,
    Form,
    InvertedResidual,
    Row,
    SqueezeExcite,
    divisible,
    pads,
    places,
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(module, x, **options):
    """Drawn without compiling the initialisers."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, **options))
    return jax.tree.map(lambda s: draw(*s.shape, seed=s.size), shapes)


def row(inputs=4, expanded=8, channels=4, stride=1, squeezed=0):
    return Row("block", 3, inputs, expanded, channels, stride, "relu6", squeezed)


@pytest.mark.parametrize(
    "channels, rounded",
    [(1, 8), (11.9, 16), (11, 16), (12, 16), (16.8, 16), (17.8, 24), (35.2, 32)],
)
def test_channels_are_multiples_of_8_and_lose_no_tenth(channels, rounded):
    assert divisible(channels) == rounded


@pytest.mark.parametrize(
    "activation, low, high", [("none", -9, 9), ("relu", 0, 9), ("relu6", 0, 6), ("swish", 0, 9)]
)
def test_activations_cut_where_they_should(activation, low, high):
    layer = ConvNorm(1, Form("none"), activation=activation)
    x = jnp.array([-9.0, 9.0])[None, None, :, None]
    y = layer.apply({"params": {"conv": {"kernel": jnp.ones((1, 1, 1, 1))}}}, x, train=False)
    np.testing.assert_allclose(y.ravel(), [low, high], atol=2e-3)


def test_a_depthwise_convolution_keeps_channels_apart():
    layer, x = ConvNorm(3, Form("none"), 3, depthwise=True), draw(1, 5, 5, 3)
    variables = random_variables(layer, x, train=False)
    y = layer.apply(variables, x, train=False)
    changed = layer.apply(variables, x.at[..., 1].add(1), train=False)
    moved = np.abs(y - changed).max((0, 1, 2)) > 0
    assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "inputs, expanded, squeezed, parts",
    [
        (4, 8, 0, {"expand", "depthwise", "project"}),
        (4, 4, 0, {"depthwise", "project"}),
        (4, 8, 2, {"expand", "depthwise", "squeeze", "project"}),
    ],
)
def test_a_block_has_the_layers_of_its_row(inputs, expanded, squeezed, parts):
    block = InvertedResidual(row(inputs, expanded, squeezed=squeezed), Form())
    variables = random_variables(block, draw(1, 4, 4, inputs), train=False)
    assert set(variables["params"]) == parts


@pytest.mark.parametrize(
    "channels, stride, dilated, skips",
    [(4, 1, False, True), (8, 1, False, False), (4, 2, False, False), (4, 2, True, False)],
)
def test_only_a_block_that_keeps_its_shape_adds_its_input(channels, stride, dilated, skips):
    x, step = draw(1, 4, 4, 4), 1 if dilated else stride
    block = InvertedResidual(row(channels=channels, stride=stride), Form("none"), 1, step)
    variables = random_variables(block, x, train=False)
    variables["params"]["project"]["conv"]["kernel"] *= 0
    y = block.apply(variables, x, train=False)
    np.testing.assert_array_equal(y, x if skips else jnp.zeros_like(y))


def test_squeeze_and_excitation_scales_whole_channels_by_all_means():
    layer, x = SqueezeExcite(2, "swish"), draw(2, 3, 4, 5)
    variables = random_variables(layer, x)
    y = np.asarray(layer.apply(variables, x))
    weights = {k: np.asarray(v) for k, v in flatten_dict(variables["params"], sep="/").items()}
    means = np.asarray(x).mean((1, 2))
    middle = means @ weights["reduce/kernel"][0, 0] + weights["reduce/bias"]
    middle = middle / (1 + np.exp(-middle))
    gate = middle @ weights["expand/kernel"][0, 0] + weights["expand/bias"]
    expected = np.asarray(x) / (1 + np.exp(-gate))[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_drop_path_drops_whole_images_in_training_alone_and_keeps_the_mean():
    x = draw(400, 2, 2, 4)
    block = InvertedResidual(row(), Form("none"), drop_path=0.25)
    variables = random_variables(block, x, train=False)
    whole = block.apply(variables, x, train=False) - x
    key = {"dropout": jax.random.key(0)}
    branch = np.asarray(block.apply(variables, x, train=True, rngs=key) - x)
    kept = np.abs(branch).max((1, 2, 3)) > 0
    assert abs(kept.mean() - 0.75) < 0.07
    np.testing.assert_allclose(branch[kept], np.asarray(whole)[kept] / 0.75, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "output_stride, expected",
    [
        (32, [(2, 2, 1), (4, 2, 1), (8, 1, 1), (8, 2, 1), (16, 1, 1), (16, 2, 1), (32, 1, 1)]),
        (16, [(2, 2, 1), (4, 2, 1), (8, 1, 1), (8, 2, 1), (16, 1, 1), (16, 1, 1), (16, 1, 2)]),
        (8, [(2, 2, 1), (4, 2, 1), (8, 1, 1), (8, 1, 1), (8, 1, 2), (8, 1, 2), (8, 1, 4)]),
    ],
)
def test_dilation_takes_the_place_of_strides_behind_them(output_stride, expected):
    rows = tuple(row(stride=s) for s in (2, 2, 1, 2, 1, 2, 1))
    assert [place[1:] for place in places(rows, output_stride)] == expected


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [64, 96, 240])
@pytest.mark.parametrize("before", [1, 2, 16])
def test_the_padding_of_an_image_size_is_same_at_that_size(kernel, size, before):
    cells = (-(-size // before),) * 2
    expected = jax.lax.padtype_to_pads(cells, (kernel, kernel), (2, 2), "SAME")
    assert list(pads(size, kernel, 2, 1, before)) == expected


def test_padding_with_a_stride_differs_and_without_does_not():
    x = draw(1, 8, 8, 1)
    maps = {}
    for stride in (1, 2):
        for padding in ("symmetric", "same", 8):
            layer = ConvNorm(1, Form("none", padding=padding), 3, stride)
            variables = random_variables(layer, x, train=False)
            maps[stride, padding] = np.asarray(layer.apply(variables, x, train=False))
    np.testing.assert_allclose(maps[1, "symmetric"], maps[1, "same"], atol=1e-6)
    np.testing.assert_allclose(maps[2, 8], maps[2, "same"], atol=1e-6)
    assert np.abs(maps[2, "symmetric"] - maps[2, "same"]).max() > 0.1
