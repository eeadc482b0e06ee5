import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from encdec import losses, papers
from encdec.decoders.unet import DoubleConv, UNet
from encdec.train.state import count

QUICK = {"xla_backend_optimization_level": 0}
PAPER = UNet(refine=DoubleConv(padded=False), levels="every")


def evaluate(decoder, sizes, channels=(64, 128, 256, 512, 1024)):
    maps = {
        2**i: jax.ShapeDtypeStruct((1, n, n, c), jnp.float32)
        for i, (n, c) in enumerate(zip(sizes, channels, strict=True))
    }
    return jax.eval_shape(
        lambda m: decoder.init_with_output(jax.random.key(0), m, train=False), maps
    )


def test_figure_1_sizes_and_widths_on_the_way_up():
    maps, _ = evaluate(PAPER, (568, 280, 136, 64, 28))
    assert {s: x.shape[1:] for s, x in maps.items()} == {
        1: (388, 388, 64),
        2: (196, 196, 128),
        4: (100, 100, 256),
        8: (52, 52, 512),
        16: (28, 28, 1024),
    }


def test_parameters_of_figure_1():
    _, variables = evaluate(UNet(), (32, 16, 8, 4, 2))
    params = variables["params"]
    assert count(params) == 12_188_480
    up = {s: count(params[f"upsample_s{s}"]) for s in (8, 4, 2, 1)}
    assert up == {8: 2_097_664, 4: 524_544, 2: 131_200, 1: 32_832}
    assert count(params["refine_s8"]["conv1"]) == 4_719_104


def level(seed=0):
    """A one-level decoder of width 2, its maps and its weights; 3 channels from above, 5 across."""
    rng = np.random.default_rng(seed)
    maps = {1: rng.normal(size=(1, 6, 8, 5)), 2: rng.normal(size=(1, 3, 4, 3))}
    maps = {s: jnp.asarray(x, jnp.float32) for s, x in maps.items()}
    decoder = UNet((1, 2), (2,))
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), maps, train=False)["params"])
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)
    return decoder, maps, params


@pytest.mark.paper(
    "U-Net §2",
    says="up-convolution, concatenation with the skip, two 3x3 convolutions with ReLU",
    does="a level is exactly that",
    differs="",
)
def test_one_level_is_up_convolve_concatenate_convolve_twice():
    decoder, maps, params = level()

    @jax.jit
    def reference(params, maps):
        up = nn.ConvTranspose(2, (2, 2), (2, 2)).apply(
            {"params": params["upsample_s1"]["conv"]}, maps[2]
        )
        x = jnp.concatenate([up, maps[1]], -1)  # upsampled first: as the authors' release
        for i in (1, 2):
            conv = nn.Conv(2, (3, 3)).apply({"params": params["refine_s1"][f"conv{i}"]["conv"]}, x)
            x = nn.relu(conv)
        return x

    ours = jax.jit(lambda p, m: decoder.apply({"params": p}, m, train=False)[1])(params, maps)
    np.testing.assert_allclose(ours, reference(params, maps), rtol=1e-4, atol=1e-4)
    assert np.abs(ours).max() > 1


@pytest.mark.paper(
    "U-Net release",
    says="in the concatenation the upsampled map comes first, the skip second",
    does="with its first half of input channels zeroed, a level is deaf to the coarser map",
    differs="",
)
@pytest.mark.parametrize("silenced, deaf_to", [(slice(0, 2), 2), (slice(2, 7), 1)])
def test_the_upsampled_map_comes_first_in_the_concatenation(silenced, deaf_to):
    """Zero the kernel's first 2 (last 5) input channels: the coarser map (skip) is unheard."""
    decoder, maps, params = level()
    conv = params["refine_s1"]["conv1"]["conv"]
    conv["kernel"] = conv["kernel"].at[:, :, silenced].set(0)
    apply = jax.jit(lambda m: decoder.apply({"params": params}, m, train=False)[1])
    for s in maps:
        changed = apply(maps | {s: maps[s] + 1})
        assert (changed == apply(maps)).all() == (s == deaf_to)


def test_the_decoder_of_figure_1_has_eight_3x3_four_up_convolutions_and_no_norm():
    _, variables = evaluate(UNet(), (32, 16, 8, 4, 2))
    assert set(variables) == {"params"}
    kernels = [x.shape[:2] for x in jax.tree.leaves(variables["params"]) if x.ndim == 4]
    assert kernels.count((3, 3)) == 8 and kernels.count((2, 2)) == 4 and len(kernels) == 12


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_refinements_normalise_when_asked(norm):
    _, variables = evaluate(UNet(refine=DoubleConv(norm=norm)), (32, 16, 8, 4, 2))
    assert ("batch_stats" in variables) == (norm == "batch")
    assert "scale" in variables["params"]["refine_s1"]["conv2"]["norm"][norm]


@pytest.mark.paper(
    "U-Net §2",
    says="an output pixel has its full context in the input",
    does="it sees 188 input pixels along an axis for 4 of 16 phases, 204 for the other 12",
    differs="",
)
def test_one_pixel_of_unet_sees_188_or_204():
    """Bright columns before, or after, a place: through positive weights every pixel that sees
    one of them, and no other, becomes bright."""
    model = papers.unet(1, width=1)
    cuts = (-1, 0, 15, 16, 31, 32, 186, 187, 188, 202, 203, 204, 218, 219)
    bright = [np.arange(220) <= c for c in cuts] + [np.arange(220) > c for c in cuts]
    images = jnp.asarray(np.where(bright, 1e10, 0), jnp.float32)[:, None, :, None]
    images = jnp.broadcast_to(images, (len(bright), 188, 220, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params = jax.tree.map(lambda s: jnp.full(s.shape, 0.1 * (s.ndim == 4)), shapes)
    logits = jax.jit(model.apply, compiler_options=QUICK)(params, images)["logits"]
    pixel = np.arange(36)
    first = pixel - pixel % 16
    last = first + np.where(pixel % 16 < 4, 188, 204) - 1
    wanted = [first <= c for c in cuts] + [last > c for c in cuts]
    np.testing.assert_array_equal(logits[:, 0, :, 0] > 0, wanted)


@pytest.mark.paper(
    "U-Net §3",
    says="Gaussian start of deviation sqrt(2/N), N the incoming nodes of a neuron",
    does="deviation of every large kernel within 2 %, not truncated; biases 0",
    differs="up-convolutions: N is C_in, the inputs of one output pixel; the release takes 4 C_out",
)
def test_the_start_of_unet():
    model = papers.unet(width=8)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 188, 188, 1)), jnp.float32)
    variables = jax.jit(model.init, compiler_options=QUICK)(jax.random.key(0), image)
    for path, x in flatten_dict(variables["params"], sep="/").items():
        if path.endswith("bias"):
            assert not x.any()
        elif x.size > 20_000:  # the deviation of so many draws is known within 0.5 %
            nodes = x.shape[2] * (1 if "upsample" in path else 9)
            np.testing.assert_allclose(x.std(), np.sqrt(2 / nodes), rtol=0.02, err_msg=path)
            assert np.abs(x).max() > 3.5 * x.std()
    encode = jax.jit(lambda p: model.encoder.apply({"params": p}, image, train=False))
    maps = encode(variables["params"]["encoder"])
    assert all(0.1 < np.sqrt((x**2).mean()) < 10 for x in maps.values())


@pytest.mark.paper(
    "U-Net §3",
    says="the loss is the cross entropy of a pixel-wise softmax",
    does="a last layer of zeros costs ln 2 a pixel with two classes",
    differs="",
)
def test_a_unet_whose_last_layer_is_zero_costs_ln_2():
    model, image = papers.unet(2, width=1), jnp.ones((1, 188, 188, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    params = jax.tree.map(lambda s: jnp.full(s.shape, 0.1), shapes)
    params["params"]["head"] = jax.tree.map(jnp.zeros_like, params["params"]["head"])
    logits = jax.jit(model.apply, compiler_options=QUICK)(params, image)["logits"]
    total, pixels = losses.cross_entropy(logits, jnp.zeros((1, 4, 4), int))
    np.testing.assert_allclose(total / pixels, 0.693147, atol=1e-6)
