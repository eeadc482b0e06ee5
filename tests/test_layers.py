import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from encdec import layers, parallel
from encdec.errors import InputError
from encdec.layers.depthwise import Axis, depthwise

QUICK = {"xla_backend_optimization_level": 0}
F32, BF16 = jnp.float32, jnp.bfloat16
TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 0.06}


def draw(*shape, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def value_and_gradient(function, *args):
    """Result and gradients of its sum under random weights, in one program."""

    def both(*args):
        value, pull = jax.vjp(function, *args)
        return value, pull(draw(*value.shape, dtype=value.dtype, seed=9))

    return jax.jit(both, compiler_options=QUICK)(*args)


def agree(ours, theirs, *args):
    """Values, gradients and types are the same, to rounding."""
    tolerance = TOLERANCE[args[0].dtype.type]
    ours, theirs = value_and_gradient(ours, *args), value_and_gradient(theirs, *args)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
        assert np.abs(b).max() > 0


@pytest.mark.parametrize(
    "size, stride, padding, dtype",
    [
        (2, 2, "SAME", F32),
        (2, 2, "VALID", F32),
        (4, 2, "SAME", F32),
        (4, 2, "VALID", F32),
        (3, 3, "SAME", F32),
        (16, 8, "SAME", F32),
        (16, 8, "VALID", F32),
        (6, 2, "SAME", F32),
        (7, 4, "VALID", F32),
        (3, 2, "VALID", F32),
        (2, 2, "SAME", BF16),
        (4, 2, "SAME", BF16),
    ],
)
def test_conv_transpose_has_linens_numbers(size, stride, padding, dtype):
    x, kernel = draw(2, 3, 5, 4, dtype=dtype), draw(size, size, 4, 3, dtype=dtype, seed=1)
    module = nn.ConvTranspose(
        3, (size, size), (stride, stride), padding=padding, use_bias=False, dtype=dtype
    )
    agree(
        lambda x, kernel: layers.conv_transpose(x, kernel, stride, padding),
        lambda x, kernel: module.apply({"params": {"kernel": kernel}}, x),
        x,
        kernel,
    )


def test_conv_transpose_layer_takes_linens_parameters():
    x = draw(1, 3, 4, 2)
    ours, theirs = layers.ConvTranspose(5, 4, 2), nn.ConvTranspose(5, (4, 4), (2, 2))
    params = {"params": {"kernel": draw(4, 4, 2, 5, seed=1), "bias": draw(5, seed=2)}}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(ours.init, jax.random.key(0), x)
    )
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


def test_a_grouped_conv_transpose_keeps_channels_apart():
    x = draw(2, 3, 4, 3)
    up = layers.ConvTranspose(3, 4, 2, bias=False, weights="grouped", padding="VALID")
    variables = {"params": {"kernel": draw(4, 4, 1, 3, seed=1)}}
    assert jax.eval_shape(up.init, jax.random.key(0), x)["params"]["kernel"].shape == (4, 4, 1, 3)
    each = [
        layers.conv_transpose(
            x[..., c : c + 1], variables["params"]["kernel"][..., c : c + 1], 2, "VALID"
        )
        for c in range(3)
    ]
    np.testing.assert_allclose(up.apply(variables, x), np.concatenate(each, -1), atol=1e-5)


def test_a_fixed_conv_transpose_has_no_parameters_and_is_bilinear():
    x = draw(2, 3, 4, 2)
    fixed = layers.ConvTranspose(2, 8, 4, bias=False, weights="fixed")
    assert not jax.eval_shape(fixed.init, jax.random.key(0), x)
    learned = layers.ConvTranspose(2, 8, 4, bias=False, start="bilinear")
    variables = learned.init(jax.random.key(0), x)
    np.testing.assert_allclose(fixed.apply({}, x), learned.apply(variables, x), atol=1e-6)
    with pytest.raises(InputError, match="wants 3 channels, as many as it gives; got 2"):
        layers.ConvTranspose(3, 8, 4, weights="fixed").init(jax.random.key(0), x)


@pytest.mark.parametrize("size, factor", [((3, 4), 2), ((2, 5), 4), ((1, 3), 2)])
def test_aligned_puts_corners_on_corners(size, factor):
    x = draw(2, *size, 3)
    y = np.asarray(layers.aligned(x, factor))
    assert y.shape == (2, size[0] * factor, size[1] * factor, 3)
    for row in range(size[0] * factor):
        at = row * (size[0] - 1) / (size[0] * factor - 1)
        low = min(int(at), max(size[0] - 2, 0))
        high = min(low + 1, size[0] - 1)
        mixed = x[:, low] + (at - low) * (x[:, high] - x[:, low])
        np.testing.assert_allclose(y[:, row, [0, -1]], mixed[:, [0, -1]], atol=1e-5)


def test_a_nearest_start_makes_blocks_of_equal_cells():
    x = draw(2, 3, 4, 8)
    up = layers.ConvTranspose(6, 2, 2, start="nearest")
    variables = up.init(jax.random.key(0), x)
    projected = x @ variables["params"]["kernel"][0, 0]
    np.testing.assert_allclose(
        up.apply(variables, x), layers.nearest(projected, 2), rtol=1e-5, atol=1e-5
    )
    assert abs(variables["params"]["kernel"].std() - np.sqrt(2 / 8)) < 0.15


def test_conv_transpose_refuses_a_kernel_that_cannot_keep_the_grid():
    with pytest.raises(InputError, match="or an even number more; got 3 and 2"):
        layers.conv_transpose(draw(1, 2, 2, 1), draw(3, 3, 1, 1), 2)


@pytest.mark.parametrize(
    "size, dtype", [((6, 4), F32), ((5, 3), F32), ((1, 4), F32), ((5, 3), BF16)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_has_linens_numbers_rounding_up(size, ties, dtype):
    x = draw(2, *size, 3, dtype=dtype)
    if ties:  # three values only, so that most windows hold equal maxima
        x = jnp.round(x)
    agree(layers.max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2), "SAME"), x)


@pytest.mark.parametrize(
    "size, dtype", [((6, 8), F32), ((7, 5), F32), ((1, 1), F32), ((7, 6), BF16)]
)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_3x3_has_linens_numbers(size, ties, dtype, stride):
    x = draw(2, *size, 3, dtype=dtype)
    x = jnp.round(x) if ties else x
    pad = ((1, 1), (1, 1))
    agree(
        lambda x: layers.max_pool_3x3(x, stride),
        lambda x: nn.max_pool(x, (3, 3), (stride, stride), pad),
        x,
    )


@pytest.mark.parametrize("factor, dtype", [(2, F32), (3, F32), (2, BF16)])
def test_nearest_repeats_every_cell(factor, dtype):
    agree(
        lambda x: layers.nearest(x, factor),
        lambda x: x.repeat(factor, 1).repeat(factor, 2),
        draw(2, 3, 5, 2, dtype=dtype),
    )


@pytest.mark.parametrize(
    "factor, size, dtype",
    [
        (2, (3, 5), F32),
        (3, (3, 5), F32),
        (4, (3, 5), F32),
        (8, (3, 5), F32),
        (2, (1, 1), F32),
        (4, (1, 3), F32),
        (2, (3, 5), BF16),
        (8, (3, 5), BF16),
    ],
)
def test_bilinear_is_jax_image_resize(factor, size, dtype):
    big = (2, size[0] * factor, size[1] * factor, 3)
    agree(
        lambda x: layers.bilinear(x, factor),
        lambda x: jax.image.resize(x, big, "bilinear"),
        draw(2, *size, 3, dtype=dtype),
    )


@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_keeps_a_ramp_in_the_interior(factor):
    row = layers.bilinear(jnp.arange(6.0)[None, None, :, None], factor)[0, 0, :, 0]
    expected = (np.arange(6 * factor) + 0.5) / factor - 0.5
    np.testing.assert_allclose(row, np.clip(expected, 0, 5), atol=1e-5)


@pytest.mark.paper(
    "FCN release",
    says="the bilinear filler: 1/4, 3/4, 3/4, 1/4 for a kernel of 4",
    does="these, and 1/2, 1, 1/2 for a kernel of 3",
    differs="",
)
@pytest.mark.parametrize(
    "size, ramp", [(4, [0.25, 0.75, 0.75, 0.25]), (3, [0.5, 1, 0.5]), (2, [0.5, 0.5])]
)
def test_small_bilinear_kernels(size, ramp):
    np.testing.assert_allclose(layers.bilinear_kernel(size), np.outer(ramp, ramp))


@pytest.mark.parametrize("size", [4, 16, 32, 64])
def test_bilinear_kernels_sum_to_the_stride_squared(size):
    np.testing.assert_allclose(layers.bilinear_kernel(size).sum(), size**2 / 4, rtol=1e-6)


@pytest.mark.paper(
    "FCN release",
    says="FCN-32s upsamples with a 64x64 bilinear kernel",
    does="1/4096 at its corner, 0.968994 in its middle",
    differs="",
)
def test_bilinear_kernel_of_fcn_32s():
    kernel = layers.bilinear_kernel(64)
    assert kernel[0, 0] == 1 / 4096
    np.testing.assert_allclose(kernel.max(), 0.968994, atol=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])


@pytest.mark.paper(
    "FCN release",
    says="one bilinear kernel for each class, nothing between classes",
    does="on the diagonal of channels, zeros elsewhere",
    differs="",
)
def test_bilinear_init_keeps_channels_apart():
    kernel = layers.bilinear_init(jax.random.key(0), (4, 4, 3, 3))
    for i in range(3):
        for o in range(3):
            expected = layers.bilinear_kernel(4) if i == o else np.zeros((4, 4))
            np.testing.assert_array_equal(kernel[:, :, i, o], expected)


@pytest.mark.paper(
    "FCN §3.3",
    says="a transposed convolution can be bilinear interpolation",
    does="equal to bilinear resizing in the interior",
    differs="scores fade at the border, where nothing lies beyond",
)
@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_deconvolution_interpolates_in_the_interior(factor):
    x = draw(1, 4, 5, 2)
    kernel = layers.bilinear_init(jax.random.key(0), (2 * factor, 2 * factor, 2, 2))
    ours, whole = layers.conv_transpose(x, kernel, factor), layers.bilinear(x, factor)
    inside = (slice(None), slice(factor // 2, -factor // 2), slice(factor // 2, -factor // 2))
    np.testing.assert_allclose(ours[inside], whole[inside], atol=1e-5)
    assert np.abs(ours - whole).max() > 0.1  # attenuated at the border (FCN: no context there)


def test_centre_crop_takes_the_middle():
    x = jnp.broadcast_to(jnp.arange(9.0)[None, :, None, None], (1, 9, 6, 1))
    cropped = layers.centre_crop(x, 5, 2)
    assert cropped.shape == (1, 5, 2, 1)
    np.testing.assert_array_equal(cropped[0, :, 0, 0], [2, 3, 4, 5, 6])
    assert layers.centre_crop(x, 9, 6).shape == x.shape


@pytest.mark.paper(
    "U-Net §3",
    says="3x3 on 64 channels: N = 576, deviation sqrt(2/N)",
    does="that deviation within 2 %, not truncated",
    differs="",
)
def test_he_normal_is_not_truncated_and_has_deviation_of_its_fan_in():
    kernel = layers.he_normal(jax.random.key(0), (3, 3, 64, 64))
    deviation = np.sqrt(2 / 576)
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    assert np.abs(kernel).max() > 3 * deviation


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_standardise_by_channel_or_by_the_average(channels):
    images = draw(1, 2, 2, channels)
    mean, std = np.array([0.1, 0.2, 0.6]), np.array([0.5, 0.25, 0.75])
    ours = layers.standardise(images, tuple(mean.tolist()), tuple(std.tolist()))
    if channels != 3:
        mean, std = mean.mean(), std.mean()
    np.testing.assert_allclose(ours, (np.asarray(images) - mean) / std, rtol=1e-5, atol=1e-6)


def test_batch_norm_has_torchvisions_momentum_and_epsilon():
    x = 3 * draw(2, 4, 4, 3) + 1
    norm = layers.Norm("batch")
    variables = norm.init(jax.random.key(0), x, train=False)
    still = norm.apply(variables, x, train=False)
    y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    x = np.asarray(x)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    stats = new["batch_stats"]["batch"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)
    np.testing.assert_allclose(still, x / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_a_frozen_norm_is_that_of_evaluation_and_learns_nothing():
    x = 3 * draw(2, 4, 4, 3) + 1
    variables = layers.Norm("batch").init(jax.random.key(0), x, train=False)
    _, new = layers.Norm("batch").apply(variables, x, train=True, mutable=["batch_stats"])
    variables, frozen = variables | new, layers.Norm("frozen", relu=True)

    def total(params, x):
        y, after = frozen.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return (y**2).sum(), (y, after)

    (slopes, to_x), (y, after) = jax.grad(total, (0, 1), has_aux=True)(variables["params"], x)
    np.testing.assert_array_equal(y, layers.Norm("batch", True).apply(variables, x, train=False))
    assert jax.tree.all(jax.tree.map(np.array_equal, after["batch_stats"], new["batch_stats"]))
    assert all((slope == 0).all() for slope in jax.tree.leaves(slopes)) and (to_x != 0).any()


def test_batch_norm_takes_epsilon_and_momentum():
    x = 0.1 * draw(2, 4, 4, 3) + 1
    norm = layers.Norm("batch", epsilon=0.01, momentum=0.99)
    variables = norm.init(jax.random.key(0), x, train=False)
    still = norm.apply(variables, x, train=False)
    y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    x = np.asarray(x)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 0.01), atol=1e-5)
    np.testing.assert_allclose(still, x / np.sqrt(1.01), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["batch"]["mean"], 0.01 * mean, rtol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["batch"]["var"], 0.99 + 0.01 * var, rtol=1e-4)


def test_group_norm_takes_epsilon():
    x = 0.1 * draw(1, 2, 2, 1)
    norm = layers.Norm("group", epsilon=0.01)
    y = norm.apply(norm.init(jax.random.key(0), x, train=True), x, train=True)
    x = np.asarray(x)
    np.testing.assert_allclose(y, (x - x.mean()) / np.sqrt(x.var() + 0.01), atol=1e-5)


def test_statistics_of_a_large_map_lose_nothing_to_rounding():
    x = draw(2, 250, 300, 2)
    _, (_, variance) = layers.batch_norm(x, jnp.ones(2), jnp.zeros(2), False, None)
    np.testing.assert_allclose(variance, np.asarray(x, np.float64).var((0, 1, 2)), rtol=2e-6)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_batch_norm_has_linens_numbers(relu, dtype, epsilon):
    x, scale, bias = 3 * draw(2, 5, 4, 3, dtype=dtype) + 1, draw(3, seed=1), draw(3, seed=2)
    module = nn.BatchNorm(False, momentum=0.9, epsilon=epsilon, dtype=dtype)
    stats = {"mean": jnp.zeros(3), "var": jnp.ones(3)}

    def linen(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
        y, new = module.apply(variables, x, mutable=["batch_stats"])
        return jnp.where(relu, nn.relu(y), y), new["batch_stats"]

    def ours(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
        y, new = layers.BatchNorm(relu, dtype=dtype.__name__, epsilon=epsilon).apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        return y, new["batch_stats"]

    agree(lambda *args: ours(*args)[0], lambda *args: linen(*args)[0], x, scale, bias)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(ours)(x, scale, bias)[1],
        jax.jit(linen)(x, scale, bias)[1],
    )


@pytest.mark.parametrize("channels, groups", [(64, 32), (48, 24), (37, 1)])
def test_group_norm_takes_the_largest_fitting_groups(channels, groups):
    x = 3 * draw(2, 2, 2, channels) + 1
    norm = layers.Norm("group")
    y = norm.apply(norm.init(jax.random.key(0), x, train=True), x, train=True)
    cells = np.asarray(x).reshape(2, 4, groups, -1)
    mean, var = cells.mean((1, 3), keepdims=True), cells.var((1, 3), keepdims=True)
    expected = ((cells - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_batch_norm_on_four_devices_is_one_devices():
    assert jax.device_count() == 4
    # Each device sees another brightness: means of the devices' own variances would be far off.
    x = draw(8, 3, 3, 2) + jnp.arange(8.0)[:, None, None, None]
    norm = layers.Norm("batch")
    variables = norm.init(jax.random.key(0), x, train=False)

    def step(x):
        y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y * draw(*y.shape[1:], seed=3)[None]).sum(), (y, new)

    def both(x):
        grad, aux = jax.grad(step, has_aux=True)(x)
        return grad, *aux

    grad, y, stats = jax.jit(both)(x)
    split = jax.pmap(both, axis_name=parallel.AXIS)(x.reshape(4, 2, *x.shape[1:]))
    np.testing.assert_allclose(split[0].reshape(x.shape), grad, atol=1e-5)
    np.testing.assert_allclose(split[1].reshape(x.shape), y, atol=1e-5)
    for device in range(4):
        one = jax.tree.map(lambda v, d=device: v[d], split[2])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, stats)


@pytest.mark.parametrize("norm, bias, leaves", [("none", False, 2), ("batch", False, 3)])
@pytest.mark.parametrize("padded, size", [(True, 5), (False, 3)])
def test_conv_norm_relu_is_a_convolution_without_idle_bias(norm, bias, leaves, padded, size):
    block, x = layers.ConvNormRelu(3, norm, padded, bias), draw(1, 5, 5, 2)
    variables = block.init(jax.random.key(0), x, train=False)
    assert len(jax.tree.leaves(variables["params"])) == leaves
    y = block.apply(variables, x, train=False)
    plain = jax.lax.conv_general_dilated(
        x,
        variables["params"]["conv"]["kernel"],
        (1, 1),
        "SAME" if padded else "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert y.shape == (1, size, size, 3)
    np.testing.assert_allclose(y, np.maximum(plain, 0), atol=2e-5)


def conv_has_linens_numbers(size, channels, out, kernel, dtype, **fields):
    ours, theirs = (of(out, kernel, dtype=dtype, **fields) for of in (layers.Conv, nn.Conv))
    x = draw(2, *size, channels, dtype=dtype)
    kernel, bias = ours.init(jax.random.key(0), x)["params"].values()

    def of(module):
        return lambda x, kernel: module.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    agree(of(ours), of(theirs), x, kernel)


@pytest.mark.parametrize(
    "size, kernel, padding",
    [((4, 4), 7, 3), ((2, 2), 3, "SAME"), ((1, 2), 3, ((1, 1), (2, 0))), ((4, 5), 6, "CIRCULAR")],
)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_kernel_over_the_map_has_linens_numbers(size, kernel, padding, dtype):
    conv_has_linens_numbers(size, 3, 5, (kernel, kernel), dtype, padding=padding)


@pytest.mark.parametrize(
    "kernel, padding", [((3, 3), 1), ((3, 3), 0), ((2, 5), "SAME"), ((4, 4), ((0, 2), (3, 5)))]
)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_narrowing_convolution_has_linens_numbers(kernel, padding, dtype):
    conv_has_linens_numbers((6, 7), 5, 2, kernel, dtype, padding=padding)


@pytest.mark.parametrize(
    "size, kernel, strides, dilation, padding",
    [
        ((5, 6), (3, 3), 1, 1, 1),
        ((5, 6), (3, 3), 1, 1, 0),
        ((7, 6), (3, 3), 2, 1, 1),
        ((7, 6), (3, 3), 2, 1, "SAME"),
        ((8, 9), (5, 3), (2, 3), 1, ((0, 2), (1, 0))),
        ((4, 5), (2, 2), 3, 1, "VALID"),
        ((9, 7), (3, 3), 1, 2, "SAME"),
        ((9, 8), (3, 2), (1, 2), (2, 3), ((2, 1), (3, 2))),
        ((2, 3), (5, 7), 1, 1, "SAME"),
        ((35, 3), (3, 3), 1, 1, 1),  # more rows than one block of them
        ((6, 6), (1, 1), 2, 1, 0),
    ],
)
@pytest.mark.parametrize("channels, out, groups", [(5, 5, 5), (12, 8, 4)])
def test_groups_have_linens_numbers(
    size, kernel, strides, dilation, padding, channels, out, groups
):
    fields = {"kernel_dilation": dilation, "padding": padding, "feature_group_count": groups}
    conv_has_linens_numbers(size, channels, out, kernel, F32, strides=strides, **fields)


@pytest.mark.parametrize("channels, out, groups", [(4, 4, 4), (80, 40, 20), (3, 6, 1), (4, 8, 4)])
def test_groups_and_1x1_have_linens_numbers_in_bfloat16(channels, out, groups):
    kernel = (1, 1) if groups == 1 else (3, 3)
    conv_has_linens_numbers((5, 4), channels, out, kernel, BF16, feature_group_count=groups)


def test_depthwise_sums_in_float32_what_is_stored_in_bfloat16():
    """1 + 24 / 256: each of the 24 alone is lost beside a bfloat16's 1."""
    kernel = jnp.full((5, 5, 1, 2), 1 / 256, BF16).at[0, 0].set(1)
    axis = Axis(5, 1, (0, 0), 1)
    assert depthwise(axis, axis, jnp.ones((1, 5, 5, 2), BF16), kernel).tolist() == [
        [[[1 + 24 / 256] * 2]]
    ]


def test_groups_can_be_mapped_over():
    x, kernel = draw(3, 2, 5, 5, 4), draw(3, 3, 1, 4, seed=1)
    conv = layers.Conv(4, (3, 3), padding=1, feature_group_count=4, use_bias=False)

    def of(x):
        return conv.apply({"params": {"kernel": kernel}}, x)

    np.testing.assert_allclose(jax.vmap(of)(x)[1], of(x[1]), atol=1e-6)


def test_only_a_cpu_gets_a_dot_or_sums_and_only_where_they_are_faster():
    def text(size, platform, kernel=3, out=4, **fields):
        conv = layers.Conv(out, (kernel, kernel), padding=kernel // 2, **fields)
        x = jnp.zeros((1, size, size, 2))
        traced = jax.jit(conv.apply).trace(jax.eval_shape(conv.init, jax.random.key(0), x), x)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    direct = ({"strides": 2}, {"kernel_dilation": 2}, {"size": 3})
    assert all("convolution" in text(**{"size": 2} | fields, platform="cpu") for fields in direct)
    faster = ({}, {"size": 8, "kernel": 1}, {"size": 8, "out": 2, "feature_group_count": 2})
    for fields in faster:
        assert "convolution" not in text(**{"size": 2} | fields, platform="cpu")
        for platform in ("cuda", "tpu"):
            assert "convolution" in text(**{"size": 2} | fields, platform=platform)
