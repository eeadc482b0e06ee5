import pytest

from encdec.encoders.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b3,
    efficientnet_lite0,
)
from encdec.errors import InputError
from encdec.weights.efficientnet import fields, names, pixels

B0, LITE = efficientnet_b0(), efficientnet_lite0()


@pytest.mark.parametrize(
    "encoder, source, pairs",
    [
        (
            B0,
            "torchvision",
            {
                "stem/conv": "features.0.0",
                "stage1_block1/squeeze/reduce": "features.1.0.block.1.fc1",
                "stage3_block2/project/norm/batch": "features.3.1.block.3.1",
            },
        ),
        (
            LITE,
            "timm",
            {
                "stage1_block1/project/conv": "blocks.0.0.conv_pw",
                "stage7_block1/depthwise/norm/batch": "blocks.6.0.bn2",
            },
        ),
        (
            LITE,
            "smp",
            {
                "stem/norm/batch": "_bn0",
                "stage1_block1/depthwise/norm/batch": "_blocks.0._bn1",
                "stage2_block1/expand/conv": "_blocks.1._expand_conv",
                "stage7_block1/project/norm/batch": "_blocks.15._bn2",
            },
        ),
        (B0, "smp", {"stage2_block2/squeeze/expand": "_blocks.2._se_expand"}),
    ],
)
def test_names_of_some_layers(encoder, source, pairs):
    found = dict(names(encoder, source))
    assert pairs.items() <= found.items()
    assert any("squeeze" in ours for ours in found) == encoder.squeeze


def test_fields_of_the_defaults_are_torchvisions_and_of_lite0_tensorflows():
    assert B0.clone(**fields(B0, "torchvision")) == B0
    assert B0.clone(**fields(B0, "timm")) == B0.clone(taps=())
    assert LITE.clone(**fields(LITE, "smp")) == LITE
    assert LITE.clone(**fields(LITE, "timm")) == LITE.clone(momentum=0.9, taps=())


def test_smps_networks_pad_as_for_their_image_size_and_b0_taps_its_fifth_stage():
    ported = {"epsilon": 1e-3, "momentum": 0.99}
    stem = ("stem",)
    assert fields(B0, "smp") == ported | {"padding": 224, "taps": (*stem, "stage5_block1")}
    assert fields(efficientnet_b3(), "smp") == ported | {"padding": 300, "taps": stem}


@pytest.mark.parametrize("encoder", [B0, LITE])
def test_pixels_are_those_of_the_factories(encoder):
    assert pixels(encoder, "timm") == (encoder.mean, encoder.std)


@pytest.mark.parametrize(
    "call, problem",
    [
        (lambda: names(B0, "keras"), "names of torchvision, timm, smp; got 'keras'"),
        (lambda: names(B0.clone(norm="none"), "timm"), "norm=\"batch\"; got 'none'"),
        (lambda: fields(EfficientNet(width=2.0), "smp"), r"width and depth .* got \(2.0, 1.0\)"),
    ],
)
def test_what_nobody_published_is_refused(call, problem):
    with pytest.raises(InputError, match=problem):
        call()
