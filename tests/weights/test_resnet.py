import pytest

from encdec.encoders.resnet import ResNet, resnet18, resnet50
from encdec.errors import InputError
from encdec.weights.resnet import names


def test_names_of_resnet50():
    found = dict(names(resnet50(), "timm"))
    assert len(found) == 2 * 53  # convolutions and norms
    assert found["conv1"] == "conv1" and found["norm1/batch"] == "bn1"
    assert found["stage1_block1/conv_skip"] == "layer1.0.downsample.0"
    assert found["stage1_block1/norm_skip/batch"] == "layer1.0.downsample.1"
    assert found["stage3_block6/conv3"] == "layer3.5.conv3"
    assert found["stage4_block2/norm2/batch"] == "layer4.1.bn2"


def test_the_first_stage_of_basic_blocks_has_no_projection():
    skips = {theirs for ours, theirs in names(resnet18(), "torchvision") if "conv_skip" in ours}
    assert skips == {f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)}


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="names of torchvision, timm, smp; got 'keras'"):
        list(names(ResNet(), "keras"))


def test_a_norm_that_no_published_net_has_is_refused():
    with pytest.raises(InputError, match="norm=\"batch\"; got 'group'"):
        list(names(ResNet(norm="group"), "timm"))
