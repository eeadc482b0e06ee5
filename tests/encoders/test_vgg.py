import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from encdec.encoders import vgg
from encdec.encoders.vgg import VGG, to_convolution, vgg11, vgg13, vgg16, vgg19
from encdec.errors import InputError
from encdec.train.state import count

# torchvision's `features`, without and with BatchNorm.
PARAMETERS = {
    (vgg11, "none"): 9_220_480,
    (vgg13, "none"): 9_404_992,
    (vgg16, "none"): 14_714_688,
    (vgg19, "none"): 20_024_384,
    (vgg11, "batch"): 9_225_984,
    (vgg13, "batch"): 9_410_880,
    (vgg16, "batch"): 14_723_136,
    (vgg19, "batch"): 20_035_392,
}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.parametrize("variant, norm", PARAMETERS)
def test_parameter_count_is_torchvisions(variant, norm):
    _, variables = evaluate(variant(norm))
    assert count(variables["params"]) == PARAMETERS[variant, norm]


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(vgg).items() if name.startswith("vgg")}
    assert set(PARAMETERS) == {(v, norm) for v in variants for norm in ("none", "batch")}


@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1), (500, 375)])
def test_maps_are_the_five_pools_rounded_up(size):
    maps, _ = evaluate(vgg16(), size)
    channels = {2: 64, 4: 128, 8: 256, 16: 512, 32: 512}
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c) for s, c in channels.items()
    }


def test_receptive_fields_of_vgg16():
    assert vgg16().receptive_fields() == {2: 6, 4: 16, 8: 44, 16: 100, 32: 212}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(VGG((1,), (5,)), channels=channels)
    assert variables["params"]["conv1_1"]["conv"]["kernel"].shape == (3, 3, channels, 5)


def test_as_many_convs_as_channels_are_wanted():
    with pytest.raises(InputError, match=r"as many convs as channels; got \(1, 2\) and \(5,\)"):
        evaluate(VGG((1, 2), (5,)))


@pytest.mark.paper(
    "FCN §4.1",
    says="receptive field 404, stride 32 (Table 1)",
    does="404 for fc7; 44 and 100 for pool3 and pool4",
    differs="",
)
def test_receptive_fields_of_fcns_trunk():
    assert VGG(pad=100, fc=(1, 1)).receptive_fields() == {2: 6, 4: 16, 8: 44, 16: 100, 32: 404}


@pytest.mark.paper(
    "FCN release",
    says="with the image padded by 100, cells lie at 8i - 95.5, 16i - 91.5 and 32i + 12.5",
    does="these places; pool5 at 32i - 83.5",
    differs="",
)
def test_places_of_the_cells_of_fcns_trunk():
    origins = VGG(pad=100, fc=(1, 1)).origins()
    assert {s: origins[s] for s in (8, 16, 32)} == {8: -95.5, 16: -91.5, 32: 12.5}
    assert VGG(pad=100).origins()[32] == -83.5


def seen(encoder, stride, cell, size=700):
    """First and last row of the image that a cell sees, through positive weights: one bright row
    after another reaches it."""
    image = jax.ShapeDtypeStruct((1, size, 8, 1), jnp.float32)
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), image)
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1 * (s.ndim == 4)), shapes)
    apply = jax.jit(lambda x: encoder.apply(variables, x, train=False)[stride][0, cell].max() > 0)

    def reaches(low, high):
        rows = (jnp.arange(size) >= low) & (jnp.arange(size) < high)
        return bool(apply(jnp.broadcast_to(rows[None, :, None, None] * 1e15, (1, size, 8, 1))))

    first, last = 0, size
    for step in (512, 256, 128, 64, 32, 16, 8, 4, 2, 1):  # bisection from either end
        first += step * (first + step < size and not reaches(0, first + step))
        last -= step * (last - step > 0 and not reaches(last - step, size))
    return first, last - 1


@pytest.mark.parametrize("stride, cell", [(8, 50), (16, 25), (32, 9)])
def test_a_cell_lies_and_sees_where_origins_and_fields_say(stride, cell):
    one = (1,) * 5
    encoder = VGG(channels=one, pad=100, fc=(1, 1), mean=(0.0,), std=(1.0,))
    centre = stride * cell + encoder.origins()[stride]
    half = (encoder.receptive_fields()[stride] - 1) / 2
    assert seen(encoder, stride, cell) == (centre - half, centre + half)


@pytest.mark.paper(
    "FCN §3.1",
    says="a fully connected layer is a convolution whose kernel covers its whole input",
    does="on a 224x224 crop, without the padding of 100, fc6 and fc7 give what the classifier does",
    differs="",
)
def test_a_classifier_as_convolutions_gives_its_answer_on_its_crop():
    rng = np.random.default_rng(0)
    encoder = VGG((1,) * 5, (2, 2, 2, 2, 3), fc=(4, 5))
    images = jnp.asarray(rng.uniform(size=(2, 224, 224, 3)), jnp.float32)
    matrices = [rng.normal(size=(3 * 49, 4)) / 8, rng.normal(size=(4, 5)) / 2]
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / 2, s.dtype), shapes)
    params = params["params"]
    for name, matrix, size in zip(("fc6", "fc7"), matrices, ((7, 7), (1, 1)), strict=True):
        params[name]["kernel"] = to_convolution(jnp.asarray(matrix, jnp.float32), size)
    ours = jax.jit(lambda x: encoder.apply({"params": params}, x, train=False)[32])(images)
    trunk = encoder.clone(fc=())
    pool5 = jax.jit(lambda x: trunk.apply({"params": params}, x, train=False)[32])(images)
    x = np.asarray(pool5).transpose(0, 3, 1, 2).reshape(2, -1)  # channels, rows, columns
    for name, matrix in zip(("fc6", "fc7"), matrices, strict=True):
        x = np.maximum(x @ matrix + np.asarray(params[name]["bias"]), 0)
    assert ours.shape == (2, 1, 1, 5) and x.max() > 0.1
    np.testing.assert_allclose(ours[:, 0, 0], x, rtol=1e-4, atol=1e-4 * x.max())
    dense = nn.Dense(4).apply({"params": {"kernel": matrices[0], "bias": params["fc6"]["bias"]}},
                              np.asarray(pool5).reshape(2, -1))  # fmt: skip
    assert np.abs(np.maximum(dense, 0) @ matrices[1] - ours[:, 0, 0]).max() > 0.1  # another order


@pytest.mark.paper(
    "FCN §4.3",
    says="dropout where the classifier has it",
    does="after fc6 and fc7, half of the values, each by itself as in Caffe; none in evaluation",
    differs="",
)
def test_dropout_after_fc6_and_fc7_drops_values():
    encoder, images = VGG((1,), (1,), fc=(64, 256)), jnp.ones((1, 16, 16, 1))
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1), shapes)
    key = {"dropout": jax.random.key(0)}
    kept = encoder.apply(variables, images, train=True, rngs=key)[2][0] > 0
    assert abs(kept.mean() - 0.5) < 0.05
    by_cell = kept.reshape(-1, 256).mean(0)
    assert ((by_cell > 0) & (by_cell < 1)).any()  # a channel is not dropped as a whole
    assert (encoder.apply(variables, images, train=False)[2] > 0).all()


def test_a_map_too_small_for_fc6_is_an_error():
    with pytest.raises(InputError, match="at least 7x7 cells; got 6x7 of an image of 192x224"):
        evaluate(VGG(fc=(1, 1)), (192, 224))
