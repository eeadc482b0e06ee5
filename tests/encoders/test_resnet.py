import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.encoders import resnet
from encdec.encoders.resnet import (
    Block,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50,
    wide_resnet50,
)
from encdec.errors import InputError
from encdec.train.state import count

# torchvision's trunks, without the last fully connected layer.
PARAMETERS = {
    resnet18: 11_176_512,
    resnet34: 21_284_672,
    resnet50: 23_508_032,
    resnet101: 42_500_160,
    resnet152: 58_143_808,
    resnext50: 22_979_904,
    wide_resnet50: 66_834_240,
}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(module, x):
    """Drawn without compiling the initialisers."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    return jax.tree.map(lambda s: draw(*s.shape, seed=s.size), shapes)


def conv(x, kernel, stride, pad):
    """Convolution of one image by its definition, zeros around it on all sides."""
    x, (k, _, _, out) = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0))), kernel.shape
    h, w = ((n - k) // stride + 1 for n in x.shape[:2])
    y = np.empty((1, h, w, out))
    for i in range(h):
        for j in range(w):
            window = x[i * stride : i * stride + k, j * stride : j * stride + k]
            y[0, i, j] = np.tensordot(window, kernel, 3)
    return y


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_count_is_torchvisions(variant):
    _, variables = evaluate(variant())
    assert count(variables["params"]) == PARAMETERS[variant]


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(resnet).items() if "resne" in name}
    assert set(PARAMETERS) == variants


@pytest.mark.parametrize("variant", PARAMETERS)
def test_the_docstring_gives_the_parameter_count(variant):
    assert f"{PARAMETERS[variant]:,} parameters." in variant.__doc__


def test_resnet50_has_53120_parameters_of_batch_norm():
    normed, plain = (evaluate(resnet50(norm))[1]["params"] for norm in ("batch", "none"))
    assert count(normed) - count(plain) == 53_120


@pytest.mark.paper(
    "FPN §3",
    says="C2 … C5 are the stages' last maps, of strides 4, 8, 16, 32",
    does="maps by stride, rounded up at odd sizes",
    differs="",
)
@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
@pytest.mark.parametrize(
    "variant, channels",
    [(resnet18, (64, 64, 128, 256, 512)), (resnet50, (64, 256, 512, 1024, 2048))],
)
def test_maps_round_up_at_every_size(variant, channels, size):
    maps, _ = evaluate(variant(), size)
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c)
        for s, c in zip((2, 4, 8, 16, 32), channels, strict=True)
    }


@pytest.mark.parametrize(
    "variant, fields", [(resnet18, (43, 99, 211, 435)), (resnet50, (35, 91, 267, 427))]
)
def test_receptive_fields(variant, fields):
    ours = variant().receptive_fields()
    assert ours[2] == 7
    assert tuple(ours[s] for s in (4, 8, 16, 32)) == fields


@pytest.mark.parametrize("size", [8, 9])
def test_the_stem_pads_three_on_all_sides(size):
    """ "SAME" pads (2, 3) on even sizes and moves the grid by a pixel."""
    encoder = ResNet((), width=3, norm="none", mean=(0.0,), std=(1.0,))
    images = draw(1, size, size, 2)
    variables = random_variables(encoder, images)
    maps = encoder.apply(variables, images, train=False)
    kernel = np.asarray(variables["params"]["conv1"]["kernel"])
    expected = np.maximum(conv(np.asarray(images), kernel, 2, 3), 0)
    np.testing.assert_allclose(maps[2], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind, size", [("basic", 6), ("basic", 5), ("bottleneck", 6)])
def test_a_strided_block_strides_its_first_3x3_with_padding_one(kind, size):
    block, x = Block(kind, 3, 2, "none", None), draw(1, size, size, 2)
    variables = random_variables(block, x)
    y = jax.jit(lambda x: block.apply(variables, x, train=False))(x)
    kernels = {name: np.asarray(p["kernel"]) for name, p in variables["params"].items()}
    x = np.asarray(x)
    skip = conv(x, kernels["conv_skip"], 2, 0)
    strides = {"basic": (2, 1), "bottleneck": (1, 2, 1)}[kind]
    for i, stride in enumerate(strides, 1):
        x = conv(x, kernels[f"conv{i}"], stride, len(kernels[f"conv{i}"]) // 2)
        x = np.maximum(x, 0) if i < len(strides) else x
    np.testing.assert_allclose(y, np.maximum(x + skip, 0), rtol=1e-4, atol=1e-4)


def test_a_block_that_keeps_its_shape_has_no_projection():
    x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: Block("basic", 3, 1, "none", None).init(jax.random.key(0), x, train=False), x
    )
    assert set(variables["params"]) == {"conv1", "conv2"}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(ResNet((1,), width=2), channels=channels)
    assert variables["params"]["conv1"]["kernel"].shape == (7, 7, channels, 2)


def test_a_grouped_3x3_reads_its_group_alone():
    block, x = Block("bottleneck", 2, 1, "none", None, widen=4, groups=4), draw(1, 3, 3, 8)
    kernels = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))["params"]
    assert {n: p["kernel"].shape for n, p in kernels.items()} == {
        "conv1": (1, 1, 8, 8),
        "conv2": (3, 3, 2, 8),
        "conv3": (1, 1, 8, 8),
    }


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"widen": 2}, "basic blocks want widen and groups of 1; got 2 and 1"),
        ({"groups": 2}, "basic blocks want widen and groups of 1; got 1 and 2"),
        ({"kind": "bottleneck", "groups": 3}, "3 groups do not divide 64 channels"),
        ({"kind": "bottleneck", "groups": 0}, r"at least 1; got 64, 1, 0 and \(2, 2, 2, 2\)"),
    ],
)
def test_fields_that_make_no_network_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        evaluate(ResNet(**fields))


def test_epsilon_is_added_to_every_variance():
    images = draw(1, 16, 16, 3)
    encoder = ResNet((1, 1), width=4, epsilon=3.0)
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda s: draw(*s.shape), shapes)
    stats = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.ones_like(x) if path[-1].key == "var" else x, variables["batch_stats"]
    )
    larger = jax.tree_util.tree_map_with_path(
        lambda path, x: 4 * x if path[-1].key == "var" else x, stats
    )
    some, others = (
        e.apply(variables | {"batch_stats": s}, images, train=False)
        for e, s in ((encoder, stats), (encoder.clone(epsilon=0.0), larger))
    )
    for stride in some:
        np.testing.assert_allclose(some[stride], others[stride], rtol=1e-5, atol=1e-5)
