import pytest

from encdec.encoders.ssd import SSDTrunk
from encdec.errors import InputError
from encdec.weights.ssd import names


def test_names_of_the_trunk():
    found = dict(names(SSDTrunk(), "torchvision"))
    assert len(found) == 13 + 2 + 8
    assert found["conv1_1/conv"] == "features.0" and found["conv4_3/conv"] == "features.21"
    assert found["conv5_1/conv"] == "extra.0.1" and found["conv5_3/conv"] == "extra.0.5"
    assert found["fc6"] == "extra.0.7.1" and found["fc7"] == "extra.0.7.3"
    assert found["conv8_1"] == "extra.1.0" and found["conv11_2"] == "extra.4.2"


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="names of torchvision; got 'timm'"):
        list(names(SSDTrunk(), "timm"))
