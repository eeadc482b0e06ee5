import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fpn import FPN, Strided, Subsample
from encdec.errors import InputError
from encdec.train.state import count

RESNET18, RESNET50 = (64, 128, 256, 512), (256, 512, 1024, 2048)
STRIDES = (4, 8, 16, 32)
NECK = FPN(channels=3)
CHANNELS = dict(zip(STRIDES, (2, 3, 4, 5), strict=True))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def pyramid(seed=0, size=64):
    return {s: draw(1, size // s, size // s, c, seed=seed + s) for s, c in CHANNELS.items()}


SHAPES = jax.eval_shape(lambda: NECK.init(jax.random.key(0), pyramid(), train=False)["params"])
PARAMS = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), SHAPES)
IDENTITY = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(jnp.eye(3))
apply = jax.jit(lambda params, maps: NECK.apply({"params": params}, maps, train=False))


def with_kernel(params, name, kernel, bias=None):
    """The parameters with one layer's kernel, and its bias if given, replaced."""
    old = params[name]["conv"]
    return params | {
        name: {"conv": {"kernel": kernel, "bias": old["bias"] if bias is None else bias}}
    }


def unsmoothed():
    """Every 3x3 passes its input on: P is M."""
    params = PARAMS
    for s in STRIDES:
        params = with_kernel(params, f"output_s{s}", IDENTITY, jnp.zeros(3))
    return params


@pytest.mark.paper(
    "FPN §3",
    says="1x1 laterals and 3x3 outputs, all of d = 256 channels",
    does="3,344,384 parameters on ResNet-50; 1,082,368 with d = 128",
    differs="",
)
@pytest.mark.parametrize(
    "channels, width, parameters",
    [(RESNET50, 256, 3_344_384), (RESNET18, 256, 2_607_104), (RESNET50, 128, 1_082_368)],
)
def test_parameters_of_the_paper(channels, width, parameters):
    maps = {
        s: jax.ShapeDtypeStruct((1, 64 // s, 64 // s, c), jnp.float32)
        for s, c in zip(STRIDES, channels, strict=True)
    }
    decoder = FPN(channels=width)
    variables = jax.eval_shape(lambda m: decoder.init(jax.random.key(0), m, train=False), maps)
    assert count(variables["params"]) == parameters


@pytest.mark.paper(
    "FPN §3",
    says="P2 … P5 have the sizes of C2 … C5",
    does="200x250, 100x125, 50x63, 25x32 of 800x1000 pixels",
    differs="",
)
def test_sizes_of_the_paper():
    sizes = {4: (200, 250), 8: (100, 125), 16: (50, 63), 32: (25, 32)}
    maps = {
        s: jax.ShapeDtypeStruct((1, *sizes[s], c), jnp.float32)
        for s, c in zip(STRIDES, RESNET50, strict=True)
    }
    pyramid, _ = jax.eval_shape(
        lambda m: FPN().init_with_output(jax.random.key(0), m, train=False), maps
    )
    assert {s: x.shape for s, x in pyramid.items()} == {s: (1, *sizes[s], 256) for s in STRIDES}


@pytest.mark.paper(
    "FPN §3",
    says="no nonlinearity in the extra layers",
    does="weighted sums of pyramids come out as weighted sums",
    differs="",
)
def test_the_neck_is_affine():
    a, b = pyramid(1), pyramid(2)
    mixed = {s: 3 * a[s] - 2 * b[s] for s in STRIDES}  # affine: weights that add up to one
    for s in STRIDES:
        expected = 3 * apply(PARAMS, a)[s] - 2 * apply(PARAMS, b)[s]
        np.testing.assert_allclose(apply(PARAMS, mixed)[s], expected, rtol=1e-3, atol=2e-3)


@pytest.mark.paper(
    "FPN §3",
    says="the coarser map is upsampled by 2, nearest neighbour",
    does="without laterals, finer levels are exact 2x, 4x, 8x copies of the coarsest",
    differs="",
)
def test_without_lateral_weights_finer_levels_are_exact_copies_of_the_coarsest():
    params = unsmoothed()
    for s in (4, 8, 16):
        zero = jnp.zeros_like(PARAMS[f"lateral_s{s}"]["conv"]["kernel"])
        params = with_kernel(params, f"lateral_s{s}", zero, jnp.zeros(3))
    maps = apply(params, pyramid())
    for s in (4, 8, 16):
        copies = maps[32].repeat(32 // s, 1).repeat(32 // s, 2)
        np.testing.assert_array_equal(maps[s], copies)


def test_without_the_coarsest_lateral_p5_is_its_bias():
    zero = jnp.zeros_like(PARAMS["lateral_s32"]["conv"]["kernel"])
    params = with_kernel(PARAMS, "lateral_s32", zero, jnp.zeros(3))
    bias = PARAMS["output_s32"]["conv"]["bias"]
    np.testing.assert_allclose(apply(params, pyramid())[32], np.broadcast_to(bias, (1, 2, 2, 3)))


@pytest.mark.paper(
    "FPN §3",
    says="the upsampled map and the lateral are added",
    does="each merged map is the lateral plus the doubled coarser one",
    differs="",
)
def test_merged_maps_are_lateral_plus_the_coarser_doubled():
    maps, merged = pyramid(), apply(unsmoothed(), pyramid())
    for s in (4, 8, 16):
        conv = PARAMS[f"lateral_s{s}"]["conv"]
        lateral = np.asarray(maps[s]) @ np.asarray(conv["kernel"][0, 0]) + np.asarray(conv["bias"])
        doubled = np.asarray(merged[2 * s]).repeat(2, 1).repeat(2, 2)
        np.testing.assert_allclose(merged[s], lateral + doubled, rtol=1e-4, atol=1e-4)


@pytest.mark.paper(
    "FPN §3",
    says="a 3x3 convolution on each merged map gives the final one",
    does="it is outside the path: one level's 3x3 changes that level alone",
    differs="",
)
def test_the_recursion_takes_maps_from_before_the_smoothing():
    before = apply(PARAMS, pyramid())
    for s in STRIDES:
        kernel = 2 * PARAMS[f"output_s{s}"]["conv"]["kernel"]
        after = apply(with_kernel(PARAMS, f"output_s{s}", kernel), pyramid())
        assert {t for t in STRIDES if (after[t] != before[t]).any()} == {s}


@pytest.mark.paper(
    "FPN §3",
    says="top-down: coarser levels feed finer ones",
    does="the gradient of P_k reaches C_k and all coarser maps, no finer one",
    differs="",
)
@pytest.mark.parametrize("level", STRIDES)
def test_the_gradient_of_a_level_reaches_its_skip_and_coarser_ones_only(level):
    grads = jax.jit(jax.grad(lambda m: (apply(PARAMS, m)[level] ** 2).sum()))(pyramid())
    assert {s for s, g in grads.items() if g.any()} == {s for s in STRIDES if s >= level}


@pytest.mark.paper(
    "FPN §4.1",
    says="P6 is a subsampling of P5 with stride 2, for anchors of 512²",
    does="every other cell of P5, rounded up, no parameters",
    differs="",
)
def test_p6_is_every_other_cell_of_p5():
    decoder = NECK.clone(coarser=Subsample())
    maps = pyramid(size=160)
    found = jax.jit(lambda m: decoder.apply({"params": PARAMS}, m, train=False))(maps)
    assert decoder.outputs() == (4, 8, 16, 32, 64) == tuple(sorted(found))
    assert found[32].shape == (1, 5, 5, 3) and found[64].shape == (1, 3, 3, 3)
    np.testing.assert_array_equal(found[64], found[32][:, ::2, ::2])
    for stride, x in apply(PARAMS, maps).items():
        np.testing.assert_array_equal(found[stride], x)


@pytest.mark.paper(
    "RetinaNet §4",
    says="P3 … P7; P6 by a 3x3 convolution of stride 2 on C5, P7 by a ReLU and another one",
    does="that; parameters output_s64 and output_s128",
    differs="",
)
@pytest.mark.parametrize("source, channels", [("encoder", 5), ("pyramid", 3)])
def test_p6_and_p7_are_strided_convolutions(source, channels):
    decoder = FPN((8, 16, 32), 3, coarser=Strided(source=source))
    maps = {s: x for s, x in pyramid(size=160).items() if s > 4}
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), maps, train=False)["params"])
    assert shapes["output_s64"]["conv"]["kernel"].shape == (3, 3, channels, 3)
    params = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), shapes)
    found = jax.jit(lambda m: decoder.apply({"params": params}, m, train=False))(maps)
    assert {s: x.shape[1] for s, x in found.items()} == {8: 20, 16: 10, 32: 5, 64: 3, 128: 2}

    def strided(x, layer):
        """3x3 of stride 2 with a border of zeros, cell by cell."""
        x = np.pad(np.asarray(x[0]), ((1, 1), (1, 1), (0, 0)))
        kernel, bias = (np.asarray(params[layer]["conv"][name]) for name in ("kernel", "bias"))
        size = (x.shape[0] - 1) // 2
        return np.array([
            [
                np.tensordot(x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) + bias
                for j in range(size)
            ]
            for i in range(size)
        ])  # fmt: skip

    below = maps[32] if source == "encoder" else found[32]
    np.testing.assert_allclose(found[64][0], strided(below, "output_s64"), rtol=1e-4, atol=1e-4)
    above = strided(np.maximum(found[64], 0), "output_s128")
    np.testing.assert_allclose(found[128][0], above, rtol=1e-4, atol=1e-4)


def test_levels_above_the_pyramid_want_its_coarsest_map():
    with pytest.raises(InputError, match="wants the pyramid's map of stride 32, got levels"):
        FPN(levels="finest", coarser=Subsample()).outputs()
    assert FPN(levels="finest", coarser=Strided()).outputs() == (4, 64, 128)
    assert FPN().outputs() == (4, 8, 16, 32)


@pytest.mark.paper(
    "FPN release",
    says="Xavier fill of the pyramid's convolutions, biases 0",
    does="uniform in ±sqrt(3/N), N the incoming nodes",
    differs="",
)
def test_the_start_of_the_pyramid():
    maps = {s: jnp.zeros((1, 64 // s, 64 // s, 64)) for s in (16, 32)}
    params = FPN((16, 32), 64).init(jax.random.key(0), maps, train=False)["params"]
    for layer in params.values():
        kernel, bias = np.asarray(layer["conv"]["kernel"]), layer["conv"]["bias"]
        bound = np.sqrt(3 / (kernel.size / 64))
        assert 0.99 * bound < kernel.max() < bound and not bias.any()
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.03)
