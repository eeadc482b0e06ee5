import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from encdec.encoders import convnext
from encdec.encoders.convnext import Block, ConvNeXt, convnext_base, convnext_small, convnext_tiny
from encdec.errors import InputError
from encdec.train.state import count

QUICK = {"xla_backend_optimization_level": 0}

# torchvision's and timm's trunks, without the last norm and fully connected layer.
PARAMETERS = {
    convnext_tiny: 27_818_592,
    convnext_small: 49_453_152,
    convnext_base: 87_564_416,
}


def evaluate(encoder, size=(32, 32), channels=3):
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_count_is_the_libraries(variant):
    _, variables = evaluate(variant())
    assert set(variables) == {"params"}
    assert count(variables["params"]) == PARAMETERS[variant]
    assert f"{PARAMETERS[variant]:,} parameters." in variant.__doc__


def test_no_variant_is_missing_from_the_table():
    variants = {v for name, v in vars(convnext).items() if name.startswith("convnext")}
    assert set(PARAMETERS) == variants


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
def test_maps_round_up_at_every_size(size, output_stride):
    maps, _ = evaluate(convnext_tiny(output_stride), size)
    channels = {4: 96, 8: 192, 16: 384, 32: 768}
    channels = {s: c for s, c in channels.items() if s < output_stride} | {output_stride: 768}
    assert {s: x.shape for s, x in maps.items()} == {
        s: (1, -(-size[0] // s), -(-size[1] // s), c) for s, c in channels.items()
    }


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_receptive_fields_are_the_gradients_footprint(output_stride):
    encoder = ConvNeXt((1, 1, 1, 1), (4, 4, 4, 4), output_stride)
    fields = encoder.receptive_fields()
    assert len(fields) == {32: 4, 16: 3, 8: 2}[output_stride]
    rows = 2 * -(-max(fields.values()) // 64) * 64
    image = draw(1, rows, 16, 1)  # a dilated 2x2 kernel sees nothing of a map one cell wide
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), image)
    variables = jax.tree.map(lambda s: draw(*s.shape, seed=s.size) + 0.1, shapes)

    def middle(image):
        maps = encoder.apply(variables, image, train=False)
        return jnp.stack([maps[s][0, rows // s // 2].sum() for s in fields])

    gradients = jax.jit(jax.jacrev(middle), compiler_options=QUICK)(image)
    seen = [np.flatnonzero(abs(g).max((0, 2, 3))) for g in gradients]
    assert all(places[0] > 0 and places[-1] < rows - 1 for places in seen)
    assert [places[-1] - places[0] + 1 for places in seen] == list(fields.values())


def test_layer_scale_starts_at_a_millionth():
    x = draw(1, 3, 3, 4)
    start = jax.jit(lambda: Block(0.0, 1, None).init(jax.random.key(0), x, train=False))
    params = start()["params"]
    np.testing.assert_array_equal(params["gamma"], np.full(4, 1e-6, np.float32))
    np.testing.assert_allclose(params["expand"]["kernel"].std(), 0.02, rtol=0.4)
    assert not params["conv"]["bias"].any()


def test_a_block_by_its_definition():
    """In numpy, from Figure 4 of the paper; values so small that the norm's epsilon counts."""
    block, x = Block(0.0, 2, None), draw(1, 5, 4, 3) / 1000
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), shapes)
    variables["params"]["conv"]["bias"] /= 1000
    p = jax.tree.map(lambda v: np.asarray(v, np.float64), variables["params"])
    padded = np.pad(np.asarray(x[0], np.float64), ((6, 6), (6, 6), (0, 0)))
    taps = [
        padded[2 * i : 2 * i + 5, 2 * j : 2 * j + 4] * p["conv"]["kernel"][i, j, 0]
        for i in range(7)
        for j in range(7)
    ]
    y = sum(taps) + p["conv"]["bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = y * p["norm"]["scale"] + p["norm"]["bias"]
    y = y @ p["expand"]["kernel"] + p["expand"]["bias"]
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    y = x[0] + p["gamma"] * (y @ p["project"]["kernel"] + p["project"]["bias"])
    np.testing.assert_allclose(
        block.apply(variables, x, train=True)[0], y, rtol=1e-4, atol=1e-4 * abs(y).max()
    )


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    block, x = Block(0.25, 1, None), jnp.broadcast_to(draw(1, 2, 2, 3), (400, 2, 2, 3))
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), shapes)
    key = {"dropout": jax.random.key(0)}
    added = jax.jit(lambda: block.apply(variables, x, train=True, rngs=key) - x)()
    whole = jax.jit(lambda: block.apply(variables, x, train=False) - x)()
    kept = np.asarray(abs(added).max((1, 2, 3)) > 0)
    assert abs(kept.mean() - 0.75) < 0.07
    np.testing.assert_allclose(added[kept], whole[kept] / 0.75, rtol=1e-3, atol=1e-3)


def test_the_drop_path_rises_evenly_from_no_drop_to_its_value(monkeypatch):
    rates = []
    monkeypatch.setattr(convnext, "Block", lambda drop, *rest, **named: (
        rates.append(drop), Block(drop, *rest, **named))[1])  # fmt: skip
    evaluate(ConvNeXt((1, 2, 1, 1), (1, 1, 1, 1), drop_path=0.4))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maps_have_the_dtype_of_the_computation_and_parameters_float32(dtype):
    maps, variables = evaluate(ConvNeXt((1, 1), (2, 4), dtype=dtype))
    assert {x.dtype for x in maps.values()} == {jnp.dtype(dtype)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    _, variables = evaluate(ConvNeXt((1,), (2,)), channels=channels)
    assert variables["params"]["conv1"]["kernel"].shape == (4, 4, channels, 2)


@pytest.mark.parametrize(
    "blocks, channels, message",
    [
        ((1, 2), (5,), r"as many blocks as channels; got \(1, 2\) and \(5,\)"),
        ((0,), (5,), r"at least 1; got \(0,\) and \(5,\)"),
        ((), (), r"at least 1; got \(\) and \(\)"),
    ],
)
def test_fields_that_make_no_network_are_refused(blocks, channels, message):
    with pytest.raises(InputError, match=message):
        evaluate(ConvNeXt(blocks, channels))
