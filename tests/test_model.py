import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from encdec import parallel
from encdec.anchors import Anchors
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN, Lateral, Strided
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.convnext import convnext_base, convnext_small, convnext_tiny
from encdec.encoders.densenet import densenet121
from encdec.encoders.efficientnet import efficientnet_b0, efficientnet_b4, efficientnet_lite0
from encdec.encoders.mobilenet import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50,
    wide_resnet50,
)
from encdec.encoders.vgg import vgg11, vgg13, vgg16, vgg19
from encdec.errors import InputError
from encdec.heads.dense import Dense
from encdec.heads.merge import Merge
from encdec.heads.per_level import PerLevel
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.train.state import count

ENCODERS = {
    "plain": Plain(),
    "plain, six levels": Plain((8, 8, 8, 8, 8, 8), norm="batch"),
    **{f.__name__: f() for f in (vgg11, vgg13, vgg16, vgg19)},
    **{f"{f.__name__}_bn": f("batch") for f in (vgg11, vgg13, vgg16, vgg19)},
    **{f.__name__: f() for f in (resnet18, resnet34, resnet50, resnet101, resnet152)},
    **{f.__name__: f() for f in (resnext50, wide_resnet50, densenet121)},
    **{f.__name__: f() for f in (convnext_tiny, convnext_small, convnext_base)},
    **{f.__name__: f() for f in (mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large)},
    **{f.__name__: f() for f in (efficientnet_lite0, efficientnet_b0, efficientnet_b4)},
    "resnet18, group norm": resnet18("group"),
}
CLASSES = 5


def decoders(strides):
    """FCN, U-Net and FPN over an encoder's strides; U-Net up to stride 1."""
    coarse, steps = strides[-3:], strides[-1].bit_length() - 1
    return {
        "fcn32s": FCN(coarse[2:], CLASSES),
        "fcn16s": FCN(coarse[1:], CLASSES),
        "fcn8s": FCN(coarse, CLASSES),
        "unet": UNet(strides, tuple(range(8 + steps, 8, -1)), finest=1),
        "fpn": FPN(strides[1:], 16),
    }


def hybrids(strides):
    """Nets between the papers' and the ablations."""
    return {
        "unet that adds": UNet(strides, 8, lateral=Lateral(), merge="add"),
        "fpn that concatenates": FPN(strides[1:], 16, merge="concatenate"),
        "fpn without top-down": FPN(strides[1:], 16, merge="skip"),
        "fpn without lateral": FPN(strides[1:], 16, merge="top"),
        "fpn, finest only": FPN(strides[1:], 16, levels="finest"),
    }


def heads(decoder):
    scores = isinstance(decoder, FCN)
    return {
        "pixel": Pixel(CLASSES, scores=scores),
        "pixel, learned": Pixel(CLASSES, scores=scores, upsample="learned"),
        "merge": Merge(CLASSES, 8),
    }


def shape(size, channels=3, batch=1):
    return jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)


def evaluate(model, images):
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)


def part(module, *args, **kwargs):
    """Shapes of a part's outputs."""
    return jax.eval_shape(
        lambda *a: module.init_with_output(jax.random.key(0), *a, train=False, **kwargs)[0], *args
    )


@functools.cache
def every_logits(channels, size):
    """Shapes of the logits of every decoder and head over maps of those (stride, channels)."""
    maps = {s: shape(tuple(-(-n // s) for n in size), c) for s, c in channels}
    found = {}
    for name, decoder in decoders(tuple(s for s, _ in channels)).items():
        decoded = part(decoder, maps)
        for kind, head in heads(decoder).items():
            found[name, kind] = part(head, decoded, size=size)["logits"].shape
    return found


@pytest.mark.parametrize("size", [(64, 96), (75, 41)])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_decoder_and_head_gives_logits_of_the_images_size(encoder, size):
    maps = part(ENCODERS[encoder], shape(size))
    for stride, x in maps.items():
        assert x.shape[:3] == (1, -(-size[0] // stride), -(-size[1] // stride))
    # Encoders with maps of the same shapes share the rest of the work.
    found = every_logits(tuple((s, maps[s].shape[-1]) for s in sorted(maps)), size)
    assert len(found) == 15
    assert {n: s for n, s in found.items() if s != (1, *size, CLASSES)} == {}


SMALL = {
    "plain": (Plain((4, 4, 4)), (1, 2, 4)),
    "resnet": (ResNet((1, 1), width=4), (2, 4, 8)),
}


@pytest.mark.parametrize("size", [(17, 10), (1, 2)])
@pytest.mark.parametrize("encoder", SMALL)
def test_whole_models_and_hybrids_give_logits_of_the_images_size(encoder, size):
    module, strides = SMALL[encoder]
    for decoder in (decoders(strides) | hybrids(strides)).values():
        for head in (heads(decoder)["pixel"], heads(decoder)["merge"]):
            outputs, _ = evaluate(EncoderDecoder(module, decoder, head), shape(size, 3, 2))
            assert outputs["logits"].shape == (2, *size, CLASSES)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    for module, strides in SMALL.values():
        model = EncoderDecoder(module, FCN(strides, 2), Pixel(2, scores=True))
        outputs, _ = evaluate(model, shape((16, 16), channels))
        assert outputs["logits"].shape == (1, 16, 16, 2)


PAPER = EncoderDecoder(Plain(padded=False), UNet(refine=DoubleConv(padded=False)), Pixel(2))


@pytest.mark.parametrize(
    "image, logits",
    [((572, 572), (388, 388)), ((188, 188), (4, 4)), ((444, 892), (260, 708))],
)
def test_the_unpadded_unet_loses_92_pixels_on_every_side(image, logits):
    outputs, _ = evaluate(PAPER, shape(image, 1))
    assert outputs["logits"].shape == (1, *logits, 2)


@pytest.mark.parametrize("size", [60, 172, 187, 189, 571, 573, 580])
def test_the_unpadded_unet_refuses_sizes_that_are_not_16k_plus_60(size):
    good = max(188, 60 + 16 * -(-(size - 60) // 16))
    with pytest.raises(InputError, match=f"width {size} .* next good size is {good}"):
        evaluate(PAPER, shape((572, size), 1))


@pytest.mark.parametrize(
    "channels, classes, parameters",
    [(1, 2, 31_030_658), (1, 1, 31_030_593), (3, 2, 31_031_810), (3, 21, 31_033_045)],
)
def test_the_unet_of_the_paper_has_31_million_parameters(channels, classes, parameters):
    model = EncoderDecoder(Plain(), UNet(), Pixel(classes))
    _, variables = evaluate(model, shape((32, 32), channels))
    assert count(variables["params"]) == parameters
    kernels = [x for x in jax.tree.leaves(variables["params"]) if x.ndim == 4]
    assert len(kernels) == 23 and set(variables) == {"params"}


@pytest.mark.parametrize("encoder, parameters", [(resnet50, 28_478_933), (resnet18, 15_410_133)])
def test_semantic_fpn_has_the_parameters_of_the_paper(encoder, parameters):
    _, variables = evaluate(EncoderDecoder(encoder(), FPN(), Merge(21)), shape((64, 64)))
    assert count(variables["params"]) == parameters


TINY = EncoderDecoder(
    Plain((3, 4), norm="batch"), UNet((1, 2), (3,), refine=DoubleConv(norm="batch")), Pixel(2)
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def variables_of(model, images):
    """Positive weights, drawn without compiling the initialisers."""
    _, shapes = evaluate(model, images)
    return jax.tree.map(lambda s: draw(*s.shape, seed=s.size) / 4 + 0.01, shapes)


@pytest.mark.parametrize("frozen", [(), ("encoder",), ("decoder",), ("encoder", "decoder")])
def test_frozen_parts_run_as_in_evaluation(frozen):
    images = draw(2, 6, 6, 3)
    variables = variables_of(TINY, images)
    _, new = jax.jit(
        lambda x: TINY.apply(variables, x, train=True, frozen=frozen, mutable=["batch_stats"])
    )(images)
    for name in ("encoder", "decoder"):
        old = variables["batch_stats"][name]
        now = jax.tree.leaves(new["batch_stats"][name])
        same = [(a == b).all() for a, b in zip(jax.tree.leaves(old), now, strict=True)]
        assert all(same) if name in frozen else not any(same)


def test_a_wholly_frozen_model_trains_as_it_evaluates():
    images = draw(2, 6, 6, 3)
    variables = variables_of(TINY, images)
    run = jax.jit(
        lambda train, frozen: TINY.apply(
            variables, images, train=train, frozen=frozen, mutable=["batch_stats"]
        )[0]["logits"],
        static_argnums=(0, 1),
    )
    still = run(False, ())
    np.testing.assert_array_equal(run(True, ("encoder", "decoder", "head")), still)
    assert np.abs(run(True, ()) - still).max() > 1e-3


def test_four_devices_give_the_logits_and_gradients_of_one():
    images = draw(8, 6, 6, 3) * jnp.arange(1.0, 9.0)[:, None, None, None] / 8
    variables = variables_of(TINY, images)

    def loss(params, images):
        outputs, new = TINY.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return parallel.pmean((outputs["logits"] ** 2).mean()), (outputs["logits"], new)

    def step(params, images):
        grads, (logits, stats) = jax.grad(loss, has_aux=True)(params, images)
        return parallel.pmean(grads), logits, stats

    grads, logits, stats = jax.jit(step)(variables["params"], images)
    split = jax.pmap(step, axis_name=parallel.AXIS, in_axes=(None, 0))(
        variables["params"], images.reshape(4, 2, *images.shape[1:])
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # noqa: E731
    close(split[1].reshape(logits.shape), logits)
    jax.tree.map(lambda a, b: close(a[0], b), split[0], grads)
    jax.tree.map(lambda a, b: close(a[0], b), split[2], stats)


def kinds(strides):
    """Anchors, two a cell."""
    return Anchors(tuple((s, ((8.0, 8.0), (16.0, 16.0))) for s in strides))


def products(jaxpr):
    """Types of the operands of every convolution and dot, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation.primitive.name, {v.aval.dtype.name for v in equation.invars}
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(
    "decoder, head",
    [
        (FCN((2, 4, 8), 3), Pixel(3, scores=True)),
        (UNet((2, 4, 8), (6, 5, 4), finest=1, refine=DoubleConv(norm="batch")), Pixel(3)),
        (FPN((2, 4, 8), 8), Merge(3, 8)),
        (UNet((2, 4, 8), (6, 5)), Pixel(3, upsample="learned")),
        (FPN((4, 8), 8, coarser=Strided()), Dense(3, kinds((4, 8, 16, 32)), 1, 8)),
        (
            FPN((2, 4, 8), lateral=Copy(), merge="skip", output=Copy()),
            PerLevel(3, kinds((2, 4, 8)), 20.0),
        ),
    ],
    ids=["fcn", "unet", "fpn", "learned", "retinanet", "ssd"],
)
@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_dtype_is_of_every_product_and_parameters_stay_float32(decoder, head, dtype):
    model = EncoderDecoder(ResNet((1, 1), width=4), decoder, head, dtype=dtype)
    outputs, variables = evaluate(model, shape((16, 16)))
    outputs.pop("anchors", None)  # pixels, always float32
    assert {x.dtype.name for x in jax.tree.leaves(outputs)} == {dtype or "float32"}
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    found = list(products(program(variables, shape((16, 16))).jaxpr))
    assert len(found) > 8
    assert [types for _, types in found if types != {dtype or "float32"}] == []


def test_a_dtype_of_the_model_does_not_rename_its_weights():
    names = [
        jax.tree_util.tree_structure(evaluate(TINY.clone(dtype=d), shape((8, 8)))[1])
        for d in (None, "bfloat16")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "decoder, head, message",
    [
        (FPN((4, 8, 16), 4), Merge(2, 4), r"lacks \[16\]: it has \[2, 4, 8\]"),
        (FCN((4, 8), 3), Pixel(2, scores=True), "maps of 2 class scores; got 3 channels"),
        (UNet((2, 4, 8), (4, 4, 4)), Pixel(2), "2 levels below stride 8"),
    ],
)
def test_parts_that_do_not_fit_are_one_clear_error(decoder, head, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate(EncoderDecoder(ResNet((1, 1), width=2), decoder, head), shape((16, 16)))
    assert "\n" not in str(caught.value)


class Told(nn.Module):
    """A head that says whether it was given targets."""

    classes: int = 1

    @nn.compact
    def __call__(self, maps, *, size, train, targets=None):
        count = jnp.float32(-1 if targets is None else targets["boxes"].shape[1])
        return {"given": count, "by stride": maps}


def test_targets_are_given_to_the_head_if_there_are_any():
    model = TINY.clone(head=Told())
    targets = {"boxes": jnp.zeros((1, 7, 4))}
    outputs, variables = evaluate(model, shape((8, 8)))
    assert set(outputs["by stride"]) == {1} and "head" not in variables["params"]
    images = jnp.zeros((1, 8, 8, 3))
    variables = variables_of(model, images)
    assert model.apply(variables, images)["given"] == -1
    assert model.apply(variables, images, targets=targets)["given"] == 7


def test_weights_lie_under_the_three_parts():
    _, variables = evaluate(TINY, shape((8, 8)))
    assert set(variables["params"]) == {"encoder", "decoder", "head"}


def test_models_are_equal_and_hash_by_their_fields():
    again = EncoderDecoder(
        Plain((3, 4), norm="batch"), UNet((1, 2), (3,), refine=DoubleConv(norm="batch")), Pixel(2)
    )
    assert again == TINY and hash(again) == hash(TINY) and again != TINY.clone(head=Pixel(3))
