import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import papers
from encdec.decoders.fcn import FCN, crops
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.layers import bilinear_kernel
from encdec.model import EncoderDecoder

CHANNELS = {8: 3, 16: 4, 32: 5}


def pyramid(seed=0, size=(4, 5)):
    rng = np.random.default_rng(seed)
    return {
        s: jnp.asarray(rng.normal(size=(1, size[0] * 32 // s, size[1] * 32 // s, c)), jnp.float32)
        for s, c in CHANNELS.items()
    }


def start(decoder, maps):
    init = jax.jit(lambda m: decoder.init(jax.random.key(0), m, train=False)["params"])
    return init(maps)  # the decoder's own outputs are dropped from the program


@pytest.mark.parametrize("strides", [(32,), (16, 32), (8, 16, 32)])
def test_every_score_is_zero_at_the_start_and_only_score_layers_learn(strides):
    decoder, maps = FCN(strides, channels=6), pyramid()
    params = start(decoder, maps)

    def total(params, maps):
        out = decoder.apply({"params": params}, maps, train=True)
        (scores,) = out.values()
        return scores.sum(), (out, scores)

    grads, (out, scores) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, maps)
    assert list(out) == [min(strides)] and scores.shape[-1] == 6
    assert not scores.any()
    for name, layer in grads[0].items():
        learns = np.abs(layer["conv"]["kernel"]).max() > 0
        assert learns == name.startswith("lateral"), name
    assert not any(np.abs(g).max() for g in jax.tree.leaves(grads[1]))  # nor the encoder


def cascade(strides, size=9):
    """Scores from a single 1 in the middle of the coarsest map, in one channel."""
    decoder = FCN(strides, channels=1)
    finest = min(strides)
    maps = {s: jnp.zeros((1, size * 32 // s, size * 32 // s, 1)) for s in strides}
    maps[32] = maps[32].at[0, size // 2, size // 2].set(1)
    params = start(decoder, maps)
    params["lateral_s32"]["conv"]["kernel"] = jnp.ones((1, 1, 1, 1))
    return np.asarray(decoder.apply({"params": params}, maps, train=False)[finest][0, :, :, 0])


@pytest.mark.paper(
    "FCN §3.3",
    says="upsampling by a factor f is a transposed convolution of stride f, bilinear at first",
    does="one score becomes a bilinear pyramid; two doublings its convolution with another",
    differs="",
)
def test_the_cascade_of_two_doublings_is_smoother_than_one_quadrupling():
    doubled = [0.0625, 0.1875, 0.375, 0.625, 0.75, 0.75, 0.625, 0.375, 0.1875, 0.0625]
    square = cascade((8, 16, 32))
    rows = np.flatnonzero(square.any(1))
    np.testing.assert_array_equal(rows, np.arange(13, 23))  # 18 - 5 … 18 + 5: about its cell
    np.testing.assert_allclose(square[13:23, 13:23], np.outer(doubled, doubled), atol=1e-6)
    once = [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125]
    square = cascade((8, 32))
    np.testing.assert_allclose(square[14:22, 14:22], np.outer(once, once), atol=1e-6)
    np.testing.assert_allclose(square.sum(), 16, rtol=1e-6)


@pytest.mark.paper(
    "FCN §4.3",
    says="the transposed convolutions in between start bilinear, and are learned",
    does="kernels start bilinear on the diagonal of classes; there is no bias",
    differs="",
)
def test_deconvolutions_start_bilinear_without_bias():
    params = start(FCN(channels=2), pyramid())
    for stride in (8, 16):
        conv = params[f"upsample_s{stride}"]["conv"]
        assert set(conv) == {"kernel"}
        expected = bilinear_kernel(4)[:, :, None, None] * np.eye(2)[None, None]
        np.testing.assert_allclose(conv["kernel"], expected)


@pytest.mark.paper(
    "FCN §4.2",
    says="the streams' scores are summed; nothing nonlinear follows",
    does="the result is the sum of what each scored map alone would give",
    differs="",
)
def test_scores_are_added():
    """Linear: what FCN-8s gives is the sum of what each scored map alone would give."""
    decoder, maps = FCN(channels=2), pyramid()
    params = start(decoder, maps)
    rng = np.random.default_rng(3)
    for s in CHANNELS:
        params[f"lateral_s{s}"]["conv"]["kernel"] = rng.normal(size=(1, 1, CHANNELS[s], 2)).astype(
            np.float32
        )
    apply = jax.jit(lambda m: decoder.apply({"params": params}, m, train=False)[8])
    alone = [apply({t: x * (s == t) for t, x in maps.items()}) for s in CHANNELS]
    assert min(np.abs(x).max() for x in alone) > 0.1
    np.testing.assert_allclose(apply(maps), sum(alone), atol=1e-5)


def deconvolved(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Bilinear transposed convolution by its definition: every cell lays down a kernel."""
    ramp = 1 - abs(np.arange(kernel) - (kernel - 1) / 2) / stride
    out = np.zeros([(n - 1) * stride + kernel for n in x.shape[:2]] + [x.shape[2]])
    for i, j in np.ndindex(x.shape[:2]):
        rows, columns = (
            slice(i * stride, i * stride + kernel),
            slice(j * stride, j * stride + kernel),
        )
        out[rows, columns] += np.outer(ramp, ramp)[..., None] * x[i, j]
    return out


def decoded(model: EncoderDecoder, maps: dict, skips: dict, size: tuple[int, int]) -> np.ndarray:
    """Logits of an FCN's decoder and head, the coarsest scores as they are.

    Args:
      maps: by stride, (h, w, c).
      skips: kernels (c, k) of the other scores, by stride.
    """
    kernels = skips | {32: np.eye(maps[32].shape[-1])}
    bias = jnp.zeros(kernels[32].shape[1])
    params = {
        f"lateral_s{s}": {"conv": {"kernel": jnp.asarray(k, jnp.float32)[None, None], "bias": bias}}
        for s, k in kernels.items()
    }
    maps = {s: jnp.asarray(x, jnp.float32)[None] for s, x in maps.items()}
    scores = model.decoder.apply({"params": params}, maps, train=False)
    return np.asarray(model.head.apply({}, scores, size=size, train=False)["logits"][0])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.paper(
    "FCN §4.2",
    says="the new stream starts at zero, so that the net starts with unmodified predictions",
    does="FCN-16s then gives the coarse scores, upsampled 2x and 16x; FCN-8s those of FCN-16s",
    differs="two bilinear steps are smoother than one: near, not equal to, FCN-32s",
)
def test_a_new_stream_at_zero_leaves_the_coarser_scores():
    scores, pool4, pool3 = drawn(3, 4, 2), drawn(18, 20, 3), drawn(36, 40, 3)
    twice, zero, kernel = deconvolved(scores, 4, 2), np.zeros((3, 2)), drawn(3, 2)
    maps = {32: scores, 16: pool4}
    wanted = deconvolved(twice, 32, 16)[27:, 27:][:64, :90]
    ours = decoded(papers.fcn16s(2), maps, {16: zero}, (64, 90))
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    fused = twice + (pool4 @ kernel)[5:, 5:][: twice.shape[0], : twice.shape[1]]
    wanted = deconvolved(deconvolved(fused, 4, 2), 16, 8)[31:, 31:][:64, :90]
    ours = decoded(papers.fcn8s(2), maps | {8: pool3}, {16: kernel, 8: zero}, (64, 90))
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.paper(
    "FCN release",
    says="the crops align scores and image: all nets read coarse scores at (x - 12.5) / 32",
    does="scores that are a ramp come out as that ramp there, in the interior",
    differs="",
)
@pytest.mark.parametrize("name", ["32s", "16s", "8s"])
def test_a_ramp_of_scores_is_that_ramp_in_pixels(name):
    maps = {32: 3.0 * np.arange(16)[:, None, None] - 2.0 * np.arange(16)[None, :, None]}
    skips = {s: np.zeros((1, 1)) for s in papers.fcn8s(1).decoder.strides if s < 32}
    maps |= {16: np.zeros((44, 44, 1)), 8: np.zeros((88, 88, 1))}
    model = {"32s": papers.fcn32s, "16s": papers.fcn16s, "8s": papers.fcn8s}[name](1)
    ours = decoded(model, maps, skips, (500, 500))[..., 0]
    place = (np.arange(500) - 12.5) / 32
    wanted, inside = 3 * place[:, None] - 2 * place[None], slice(40, 460)
    np.testing.assert_allclose(ours[inside, inside], wanted[inside, inside], atol=1e-4)


@pytest.mark.paper(
    "FCN release",
    says="at once: fixed scales on the skips, nothing else",
    does="score weights 100 and 10,000 times as large give FCN-8s again",
    differs="",
)
def test_at_once_differs_from_fcn8s_by_scales_alone():
    maps = {32: drawn(2, 2, 2), 16: drawn(16, 16, 3), 8: drawn(32, 32, 4)}
    small = {16: drawn(3, 2), 8: drawn(4, 2)}
    large = {16: 100 * small[16], 8: 10_000 * small[8]}
    ours = decoded(papers.fcn8s_at_once(2), maps, large, (30, 30))
    np.testing.assert_allclose(ours, decoded(papers.fcn8s(2), maps, small, (30, 30)), atol=1e-4)
    assert np.abs(ours - decoded(papers.fcn8s_at_once(2), maps, small, (30, 30))).max() > 0.1


@pytest.mark.paper(
    "FCN release",
    says="crops: the image at 19 (32s), 27 (16s), 31 (8s), 18 (AlexNet); pool4 at 5, pool3 at 9",
    does="derives them from where the cells of each map lie",
    differs="",
)
@pytest.mark.parametrize(
    "encoder, strides, kernel, wanted",
    [
        (VGG(pad=100, fc=(1, 1)), (32,), 0, ((), 19)),
        (VGG(pad=100, fc=(1, 1)), (16, 32), 0, ((5,), 27)),
        (VGG(pad=100, fc=(1, 1)), (8, 16, 32), 0, ((5, 9), 31)),
        (AlexNet(), (32,), 63, ((), 18)),
    ],
)
def test_crops_follow_from_where_the_cells_lie(encoder, strides, kernel, wanted):
    origins = encoder.origins()
    assert crops({s: origins[s] for s in strides}, kernel) == wanted


def test_cells_between_cells_cannot_be_cropped():
    with pytest.raises(InputError, match="cells lie on each other"):
        crops({32: 12.5}, kernel=63)


@pytest.mark.paper(
    "FCN §4.3",
    says="the last transposed convolution is fixed to bilinear",
    does="fixed ones are no parameters: no gradient can reach them",
    differs="CVPR learns those in between; released nets fix all",
)
def test_fixed_deconvolutions_have_no_parameters():
    def names(model):
        image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
        return {*params["decoder"], *params.get("head", ())}

    scores = {"lateral_s8", "lateral_s16", "lateral_s32"}
    assert names(papers.fcn8s()) == scores
    learned = {"upsample_s8", "upsample_s16", "deconvolution"}
    assert names(papers.fcn8s(upsampling="learned")) == scores | learned
