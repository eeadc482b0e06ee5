import pytest

from encdec.encoders.vgg import VGG, vgg16
from encdec.errors import InputError
from encdec.weights.vgg import names


def places(encoder):
    return {ours: int(theirs.removeprefix("features.")) for ours, theirs in names(encoder, "smp")}


def test_names_of_vgg16():
    assert list(places(vgg16()).values()) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_names_of_vgg16_with_batch_norm():
    found = places(vgg16("batch"))
    convs = [place for ours, place in found.items() if ours.endswith("/conv")]
    assert convs == [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    norms = [place for ours, place in found.items() if ours.endswith("/norm/batch")]
    assert norms == [place + 1 for place in convs]


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="names of torchvision, timm, smp; got 'caffe'"):
        list(names(VGG(), "caffe"))


def test_a_norm_that_no_published_net_has_is_refused():
    with pytest.raises(InputError, match='norm="none" or "batch"; got \'group\''):
        list(names(VGG(norm="group"), "timm"))
