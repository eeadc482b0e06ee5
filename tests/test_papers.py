"""The published networks have the papers' sizes, parameters and starts.

That they compute what PyTorch's do: tests/oracles.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from encdec import losses, papers
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.resnet import resnet18
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.model import EncoderDecoder
from encdec.train.state import count

QUICK = {"xla_backend_optimization_level": 0}
THIN = VGG(convs=(1,) * 5, channels=(1,) * 5, pad=100, fc=(1, 1))  # sizes are VGG16's
FCNS = {
    "32s": papers.fcn32s(2).clone(encoder=THIN),
    "16s": papers.fcn16s(2).clone(encoder=THIN),
    "8s": papers.fcn8s(2).clone(encoder=THIN),
    "alexnet": papers.fcn_alexnet(2).clone(encoder=AlexNet((2,) * 5, (1, 1))),
}


def evaluate(model: EncoderDecoder, *size: int, channels: int = 3) -> tuple[dict, dict]:
    """Shapes of the outputs and of the variables for an image of that size."""
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)


def sizes(model: EncoderDecoder, *size: int, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Rows and columns of what every layer gives, by its path, and "encoder/s8", …"""
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)

    def init(x):
        return model.init(jax.random.key(0), x, mutable=True, capture_intermediates=True)

    found = {}
    for path, (*_, made) in flatten_dict(jax.eval_shape(init, image)["intermediates"]).items():
        name = "/".join(path[:-1])
        if isinstance(made, dict):
            found |= {f"{name}/s{s}": x.shape[1:3] for s, x in made.items() if isinstance(s, int)}
        else:
            found[name] = made.shape[1:3]
    return found


@pytest.mark.paper(
    "FCN §4.1",
    says="134M parameters for VGG16, 57M for AlexNet (Table 1)",
    does="134,346,581 (32s), 134,357,354 (16s), 134,362,751 (8s), 56,954,261 (AlexNet)",
    differs="transposed convolutions that are fixed are no parameters",
)
@pytest.mark.parametrize(
    "build, fixed, learned",
    [
        (papers.fcn32s, 134_346_581, 136_152_917),
        (papers.fcn16s, 134_357_354, 134_815_994),
        (papers.fcn8s, 134_362_751, 134_489_759),
        (papers.fcn8s_at_once, 134_362_751, 134_489_759),
        (papers.fcn_alexnet, 56_954_261, 58_704_590),
    ],
)
def test_parameters_of_fcn(build, fixed, learned):
    assert count(evaluate(build(), 500, 500)[1]["params"]) == fixed
    params = evaluate(build(upsampling="learned"), 500, 500)[1]["params"]
    assert count(params) == learned
    assert count({p: x for p, x in params["encoder"].items() if p.startswith("conv")}) == (
        14_714_688 if "alexnet" not in build.__name__ else 2_334_080
    )


@pytest.mark.paper(
    "FCN release",
    says="weights of every layer of VGG16, fc6 7x7 and fc7 1x1 as convolutions",
    does="1,792 in conv1_1 … 102,764,544 in fc6, 16,781,312 in fc7",
    differs="",
)
def test_parameters_of_each_layer_of_fcn8s():
    params = evaluate(papers.fcn8s(), 500, 500)[1]["params"]
    layers = {name: count(tree) for name, tree in params["encoder"].items()}
    assert layers == {
        "conv1_1": 1_792, "conv1_2": 36_928,
        "conv2_1": 73_856, "conv2_2": 147_584,
        "conv3_1": 295_168, "conv3_2": 590_080, "conv3_3": 590_080,
        "conv4_1": 1_180_160, "conv4_2": 2_359_808, "conv4_3": 2_359_808,
        "conv5_1": 2_359_808, "conv5_2": 2_359_808, "conv5_3": 2_359_808,
        "fc6": 102_764_544, "fc7": 16_781_312,
    }  # fmt: skip
    scores = {name: count(tree) for name, tree in params["decoder"].items()}
    assert scores == {
        "lateral_s32": 4096 * 21 + 21,
        "lateral_s16": 512 * 21 + 21,
        "lateral_s8": 256 * 21 + 21,
    }
    assert "head" not in params


@pytest.mark.paper(
    "FCN release",
    says="500x500: pools 349, 175, 88, 44, 22, fc6 16, upsampled 544, 560 or 568 before cropping",
    does="these sizes, and those of 375, 224 and 1 pixel",
    differs="",
)
@pytest.mark.parametrize(
    "size, fc, upsampled",
    [(500, 16, (544, 560, 568)), (375, 12, (416, 432, 440)), (224, 8, (288, 304, 312)),
     (1, 1, (64, 80, 88))],
)  # fmt: skip
def test_sizes_inside_fcn(size, fc, upsampled):
    for name, wanted in zip(("32s", "16s", "8s"), upsampled, strict=True):
        found = sizes(FCNS[name], size, size)
        assert found["encoder/fc6"] == found["encoder/fc7"] == (fc, fc)
        assert found["head/deconvolution"] == (wanted, wanted)
    if size == 500:
        pools = {s: found[f"encoder/s{s}"][0] for s in (2, 4, 8, 16)}
        assert pools == {2: 349, 4: 175, 8: 88, 16: 44} and found["encoder/conv1_1"] == (698, 698)
        assert found["decoder/upsample_s16"] == (34, 34)
        assert found["decoder/upsample_s8"] == (70, 70)
        trunk = papers.fcn32s(2).clone(encoder=THIN.clone(fc=()))
        assert sizes(trunk, 500, 500)["encoder/s32"] == (22, 22)


@pytest.mark.paper(
    "FCN §3.1",
    says="any size in, the same size out",
    does="every size from 1 to 64 px, and some up to 1199",
    differs="",
)
@pytest.mark.parametrize("name", FCNS)
def test_fcns_answer_at_the_size_of_the_image(name):
    few = [(n, 65 - n) for n in range(1, 33)] if name == "8s" else [(1, 64), (2, 31), (7, 33)]
    for size in [*few, (67, 1199), (331, 500), (997, 613)]:
        assert evaluate(FCNS[name], *size)[0]["logits"].shape == (1, *size, 2)


@pytest.mark.paper(
    "FCN §4.3",
    says="score layers start at zero",
    does="every logit is 0, the loss ln 21 a pixel, void ones none; score_fr alone has a gradient",
    differs="",
)
def test_fcn32s_starts_with_ln_21_and_learns_its_scores_first():
    model = papers.fcn32s(21).clone(encoder=VGG((1,) * 5, (4,) * 5, pad=100, fc=(4, 4)))
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 20, 24, 3)), jnp.float32)
    labels = jnp.full((1, 20, 24), 3).at[:, :5].set(255)

    @jax.jit
    def start(image):
        params = model.init(jax.random.key(0), image)["params"]

        def loss(params):
            logits = model.apply({"params": params}, image)["logits"]
            return losses.cross_entropy(logits, labels)[0], logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (total, logits), grads = start(image)
    assert not logits.any()
    np.testing.assert_allclose(total, 15 * 24 * np.log(21), rtol=1e-5)
    learning = {p.rsplit("/", 1)[0] for p, g in flatten_dict(grads, sep="/").items() if g.any()}
    assert learning == {"decoder/lateral_s32/conv"}


@pytest.mark.paper(
    "U-Net §2",
    says="23 convolutional layers; 572x572 in, 388x388 out",
    does="18 of 3x3, 4 up-convolutions, one 1x1, no norm; 31,030,658 parameters",
    differs="of a colour image it sees the mean of the channels",
)
@pytest.mark.parametrize(
    "channels, classes, parameters",
    [(1, 2, 31_030_658), (1, 1, 31_030_593), (3, 21, 31_031_893)],
)
def test_parameters_of_unet(channels, classes, parameters):
    outputs, variables = evaluate(papers.unet(classes), 572, 572, channels=channels)
    assert outputs["logits"].shape == (1, 388, 388, classes)
    assert set(variables) == {"params"} and count(variables["params"]) == parameters
    flat = flatten_dict(variables["params"], sep="/")
    found = [x.shape[0] for p, x in flat.items() if p.endswith("/kernel")]
    assert {k: found.count(k) for k in found} == {3: 18, 2: 4, 1: 1}
    assert len(flat) == 2 * 23  # kernels and biases, no norm


@pytest.mark.paper(
    "U-Net release",
    says="the last up-convolution keeps 128 channels",
    does="31,100,354 parameters",
    differs="",
)
def test_parameters_of_the_released_unet():
    params = evaluate(papers.unet_released(), 572, 572, channels=1)[1]["params"]
    assert count(params) == 31_100_354
    assert params["decoder"]["upsample_s1"]["conv"]["kernel"].shape == (2, 2, 128, 128)


@pytest.mark.paper(
    "U-Net §2",
    says="Figure 1: 568, 280, 136, 64, 28 on the way down, 52, 100, 196, 388 on the way up",
    does="these sizes after each pair of convolutions; 56, 104, 200, 392 after up-convolutions",
    differs="",
)
def test_sizes_inside_unet():
    found = sizes(papers.unet(2, width=1), 572, 572, channels=1)
    down = [found[f"encoder/conv{i}_s{s}"][0] for s in (1, 2, 4, 8, 16) for i in (1, 2)]
    assert down == [570, 568, 282, 280, 138, 136, 66, 64, 30, 28]
    up = [found[f"decoder/{layer}"][0] for s in (8, 4, 2, 1)
          for layer in (f"upsample_s{s}", f"refine_s{s}/conv1", f"refine_s{s}/conv2")]  # fmt: skip
    assert up == [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388]


@pytest.mark.paper(
    "U-Net §2",
    says="every 2x2 pooling must see an even size",
    does="16k + 60 in, 16k - 124 out, k of at least 8; others raise and name the next good one",
    differs="",
)
@pytest.mark.parametrize(
    "size, out", [((188, 188), (4, 4)), ((444, 892), (260, 708)), ((570, 572), None)]
)
def test_sizes_of_unet(size, out):
    if out is None:
        with pytest.raises(InputError, match="next good size is 572"):
            evaluate(papers.unet(2, width=1), *size, channels=1)
    else:
        logits = evaluate(papers.unet(2, width=1), *size, channels=1)[0]["logits"]
        assert logits.shape[1:3] == out


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="a semantic branch on FPN",
    does="28,478,933 parameters on ResNet-50 with 21 classes, 15,410,133 on ResNet-18",
    differs="",
)
@pytest.mark.parametrize("encoder, parameters", [(None, 28_478_933), (resnet18(), 15_410_133)])
def test_parameters_of_semantic_fpn(encoder, parameters):
    outputs, variables = evaluate(papers.semantic_fpn(21, encoder), 224, 160)
    assert outputs["logits"].shape == (1, 224, 160, 21)
    assert count(variables["params"]) == parameters


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="the sum is at 1/4 of the image; its scores are upsampled 4x",
    does="scores of 56x40 cells for 224x160 pixels",
    differs="",
)
def test_semantic_fpn_scores_at_stride_4():
    found = sizes(papers.semantic_fpn(21), 224, 160)
    assert found["head/score"] == (56, 40)
    levels = {s: found[f"decoder/s{s}"] for s in (4, 8, 16, 32)}
    assert levels == {4: (56, 40), 8: (28, 20), 16: (14, 10), 32: (7, 5)}


@pytest.mark.paper(
    "torchvision fcn_resnet50",
    says="35,322,218 parameters with the auxiliary head; 54,314,346 of fcn_resnet101",
    does="these",
    differs="",
)
@pytest.mark.parametrize("depth, parameters", [(50, 35_322_218), (101, 54_314_346)])
def test_parameters_of_dilated_fcn(depth, parameters):
    outputs, variables = evaluate(papers.dilated_fcn(depth=depth), 65, 97)
    assert outputs["logits"].shape == outputs["aux"].shape == (1, 65, 97, 21)
    assert count(variables["params"]) == parameters


@pytest.mark.paper(
    "smp Unet",
    says="on ResNet-18, one class: 14,328,209 parameters, with scSE 14,442,200",
    does="14,328,209, and 14,442,005",
    differs="195 parameters of smp's last block's first scSE are never used",
)
def test_parameters_of_smp_unet():
    for attention, parameters in ((False, 14_328_209), (True, 14_442_005)):
        outputs, variables = evaluate(papers.smp_unet(1, resnet18(), attention), 64, 96)
        assert outputs["logits"].shape == (1, 64, 96, 1)
        assert count(variables["params"]) == parameters


@pytest.mark.paper(
    "smp FPN", says="on ResNet-18, one class: 13,047,233 parameters", does="these", differs=""
)
def test_parameters_of_smp_fpn():
    variables = evaluate(papers.smp_fpn(1, resnet18()), 64, 96)[1]
    assert count(variables["params"]) == 13_047_233
