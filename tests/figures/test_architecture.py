import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

import encdec
from encdec.decoders.fpn import FPN
from encdec.encoders.densenet import DenseNet
from encdec.encoders.resnet import ResNet
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.figures.architecture import architecture
from tests.figures.networks import NETWORKS, SIZES, found


def captured(model, image):
    """Rows, columns and channels of every module's result, as flax captures them; and outputs."""
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)

    def run(images):
        return model.init_with_output(
            jax.random.key(0), images, mutable=True, capture_intermediates=True
        )

    outputs, variables = jax.eval_shape(run, images)
    sizes = {}
    for path, (*_, made) in flatten_dict(variables["intermediates"]).items():
        name = path[:-1]
        if isinstance(made, dict):
            sizes |= {(*name, s): x.shape[1:] for s, x in made.items() if hasattr(x, "shape")}
        else:
            sizes[name] = made.shape[1:]
    return sizes, outputs


def test_sizes_are_those_of_the_maps(network):
    does = found(network)
    made, outputs = captured(NETWORKS[network], does.image)
    assert does.image == (*SIZES.get(network, (130, 160)), 3)
    for level in does.levels:
        assert (level.map and level.map.size) == made.get(("encoder", level.stride))
        for kind in ("lateral", "upsample", "refine", "output"):
            step = getattr(level, kind)
            assert (step and step.size) == made.get(("decoder", f"{kind}_s{level.stride}"))
        if level.merged and level.merged.does == "concatenate":
            assert level.merged.size[2] == level.lateral.size[2] + level.upsample.size[2]
    assert {("decoder", s) for s in does.prediction.reads} <= set(made)
    logits = outputs["logits"].shape[1:] if "logits" in outputs else None
    assert does.prediction.logits == logits
    for stride, rows in outputs.get("class", {}).items():
        kinds, values = does.prediction.says[stride].split(" × ", 1)
        cells = made["decoder", stride][0] * made["decoder", stride][1]
        assert rows.shape[1:] == (int(kinds) * cells, int(values[1:].split()[1].strip(",)")))


def does(name, kind):
    steps = {level.stride: getattr(level, kind) for level in found(name).levels}
    return {stride: step.does for stride, step in steps.items() if step}


@pytest.mark.parametrize(
    "name, merged",
    [
        ("fcn32s", {}),
        ("fcn8s", {8: "add", 16: "add"}),
        ("unet", dict.fromkeys((1, 2, 4, 8), "concatenate")),
        ("fpn that concatenates", dict.fromkeys((4, 8, 16), "concatenate")),
        ("rpn", dict.fromkeys((4, 8, 16), "add")),
        ("smp unet", {1: "", **dict.fromkeys((2, 4, 8, 16), "concatenate")}),
        ("ssd300", dict.fromkeys((8, 16, 32, 64, 100), "")),
        ("form a", {}),
        ("form d", dict.fromkeys((4, 8, 16), "")),
        ("form e", dict.fromkeys((4, 8, 16), "")),
    ],
)
def test_what_is_merged(name, merged):
    assert does(name, "merged") == merged


def test_no_top_down_and_no_lateral():
    assert does("form d", "upsample") == {} and set(does("form d", "lateral")) == {4, 8, 16, 32}
    assert set(does("form e", "upsample")) == {4, 8, 16} and set(does("form e", "lateral")) == {32}


def test_places_are_told_by_their_layers():
    assert does("fcn8s", "lateral") == dict.fromkeys((8, 16, 32), "score 1×1")
    assert does("at once", "lateral")[8] == "× 0.0001, score 1×1"
    assert does("fcn8s", "upsample") == dict.fromkeys((8, 16), "fixed bilinear ×2")
    assert set(does("unet", "lateral").values()) == {""}
    assert set(does("unet", "upsample").values()) == {"up-conv 2×2"}
    assert set(does("unet", "refine").values()) == {"2 × conv 3×3"}
    assert set(does("rpn", "lateral").values()) == {"conv 1×1"}
    assert set(does("rpn", "upsample").values()) == {"nearest ×2"}
    assert does("rpn", "output")[64] == "subsample" and does("rpn", "output")[4] == "conv 3×3"
    assert does("retinanet", "output")[128] == "conv 3×3 /2"
    assert does("smp unet", "refine")[2] == "attention, 2 × conv 3×3, attention"


@pytest.mark.parametrize(
    "encoder, words",
    [
        (encdec.Plain((2, 3)), ["2 × conv 3×3"] * 2),
        (encdec.Plain((3, 3, 3), padded=False), ["2 × conv 3×3"] * 3),
        (VGG((1, 2, 3, 1, 1), (4,) * 5), [
            "conv 3×3", "2 × conv 3×3", "3 × conv 3×3", "conv 3×3", "conv 3×3",
        ]),
        (ResNet((2, 1, 1, 3), width=4), [
            "conv 7×7 /2", "2 × block", "block", "block", "3 × block",
        ]),
        (ResNet((2, 1, 1, 3), width=4, output_stride=8), ["conv 7×7 /2", "2 × block", "5 × block"]),
        (encdec.MobileNetV2(), [
            "conv 3×3 /2, inverted residual", "2 × inverted residual", "3 × inverted residual",
            "7 × inverted residual", "4 × inverted residual, conv 1×1",
        ]),
        (NETWORKS["ssd300"].encoder, [
            "4 × conv 3×3", "conv 3×3, conv 3×3 dilated 6, conv 1×1", "conv 1×1, conv 3×3 /2",
            "conv 1×1, conv 3×3 /2", "conv 1×1, conv 3×3", "conv 1×1, conv 3×3",
        ]),
    ],
    ids=["plain", "unpadded", "vgg", "resnet", "dilated", "mobilenet", "ssd"],
)  # fmt: skip
def test_a_map_has_the_layers_since_the_one_before(encoder, words):
    strides = tuple(encoder.receptive_fields())
    model = encdec.EncoderDecoder(encoder, FPN(strides[:1], 2), encdec.Pixel(2))
    levels = architecture(model, (300, 300)).levels
    assert [level.map.does for level in levels] == words


def test_levels_that_the_head_reads():
    def reads(name):
        return found(name).prediction

    assert reads("fcn8s").reads == (8,) and reads("fcn8s").last == "fixed bilinear ×8"
    assert reads("padded unet").reads == (1,) and reads("padded unet").last == "conv 1×1"
    assert reads("unet on resnet").last == "conv 1×1, bilinear ×2"
    merged = reads("semantic fpn")
    assert merged.reads == (4, 8, 16, 32) and merged.joined == (33, 40, 32)
    assert merged.layers[32] == "3 × conv 3×3" and merged.last == "conv 1×1, bilinear ×4"
    assert reads("one level merged").last == "conv 3×3, conv 1×1, bilinear ×4"
    assert reads("rpn").shared and not reads("ssd300").shared and not reads("form a").shared
    assert reads("masks").says[4] == "2 × (class 1, mask 14×14)"
    assert reads("regions").pooled == (4, 8, 16, 32)
    assert "mask 28×28×5" in reads("regions").about
    assert reads("deep supervision").says[8] == "3 classes in training"
    assert reads("image classes").about[-1] == "4 classes"


@pytest.mark.parametrize(
    "model, size, words",
    [
        (NETWORKS["unet"], (0, 64), "wanted a size of 1 to 8,192 pixels .*; got 0x64"),
        (NETWORKS["unet"], (64, 10**9), "8,192"),
        (encdec.EncoderDecoder(encdec.Plain((2,)), ResNet(), encdec.Pixel()), (8, 8), "is a walk"),
        (encdec.EncoderDecoder(encdec.Plain((2,)), FPN(), encdec.Pixel()), (8, 8), "needs strides"),
        (encdec.EncoderDecoder(DenseNet(), encdec.FCN(), encdec.Merge(3)), (0, -1), "got 0x-1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, size, words):
    with pytest.raises(InputError, match=words):
        architecture(model, size)
