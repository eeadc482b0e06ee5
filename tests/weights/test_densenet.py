import pytest

from encdec.encoders.densenet import DenseNet, densenet121
from encdec.errors import InputError
from encdec.weights.densenet import names


def test_names_of_densenet121():
    found = dict(names(densenet121(), "timm"))
    assert len(found) == 120 + 121  # convolutions and norms
    assert found["conv1"] == "features.conv0" and found["norm1/batch"] == "features.norm0"
    layer = "features.denseblock3.denselayer24"
    assert found["block3_layer24/norm1/batch"] == f"{layer}.norm1"
    assert found["block3_layer24/conv2"] == f"{layer}.conv2"
    assert found["transition2_norm/batch"] == "features.transition2.norm"
    assert found["transition2_conv"] == "features.transition2.conv"
    assert found["norm_last/batch"] == "features.norm5"
    assert "features.transition4.conv" not in found.values()


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="names of torchvision, timm, smp; got 'keras'"):
        list(names(DenseNet(), "keras"))


def test_a_norm_that_no_published_net_has_is_refused():
    with pytest.raises(InputError, match="norm=\"batch\"; got 'none'"):
        list(names(DenseNet(norm="none"), "timm"))
