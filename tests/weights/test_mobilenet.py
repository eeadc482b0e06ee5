import pytest

from encdec.encoders.mobilenet import MobileNetV2, mobilenet_v2, mobilenet_v3_large
from encdec.errors import InputError
from encdec.weights.mobilenet import fields, names

V2, V3 = mobilenet_v2(), mobilenet_v3_large()


@pytest.mark.parametrize(
    "encoder, source, pairs",
    [
        (
            V2,
            "torchvision",
            {
                "stem/conv": "features.0.0",
                "stage1_block1/depthwise/norm/batch": "features.1.conv.0.1",
                "stage1_block1/project/conv": "features.1.conv.1",
                "stage2_block1/expand/conv": "features.2.conv.0.0",
                "stage7_block1/project/norm/batch": "features.17.conv.3",
                "last/norm/batch": "features.18.1",
            },
        ),
        (
            V2,
            "timm",
            {
                "stem/norm/batch": "bn1",
                "stage1_block1/project/conv": "blocks.0.0.conv_pw",
                "stage3_block2/project/norm/batch": "blocks.2.1.bn3",
                "last/conv": "conv_head",
            },
        ),
        (
            V3,
            "torchvision",
            {
                "stage1_block1/depthwise/conv": "features.1.block.0.0",
                "stage3_block1/squeeze/reduce": "features.4.block.2.fc1",
                "stage3_block1/project/conv": "features.4.block.3.0",
                "last/conv": "features.16.0",
            },
        ),
        (
            V3,
            "smp",
            {
                "stem/conv": "model.conv_stem",
                "stage6_block3/squeeze/expand": "model.blocks.5.2.se.conv_expand",
                "last/norm/batch": "model.blocks.6.0.bn1",
            },
        ),
    ],
)
def test_names_of_some_layers(encoder, source, pairs):
    assert pairs.items() <= dict(names(encoder, source)).items()


def test_smps_v2_is_torchvisions():
    assert list(names(V2, "smp")) == list(names(V2, "torchvision"))


@pytest.mark.parametrize("source", ["torchvision", "timm", "smp"])
def test_without_its_last_layer_v2_lacks_two_names(source):
    whole, cut = (dict(names(MobileNetV2(last=last), source)) for last in (True, False))
    assert whole.keys() - cut.keys() == {"last/conv", "last/norm/batch"}
    assert cut.items() < whole.items()


def test_timms_v3_has_another_epsilon_than_torchvisions():
    assert V3.clone(**fields(V3, "torchvision")) == V3
    assert V3.clone(**fields(V3, "timm")) == V3.clone(epsilon=1e-5, momentum=0.9)
    assert fields(V2, "timm") == {}


@pytest.mark.parametrize(
    "encoder, source, problem",
    [
        (V2, "keras", "names of torchvision, timm, smp; got 'keras'"),
        (V3.clone(norm="group"), "timm", "norm=\"batch\"; got 'group'"),
    ],
)
def test_what_nobody_published_is_refused(encoder, source, problem):
    with pytest.raises(InputError, match=problem):
        names(encoder, source)
