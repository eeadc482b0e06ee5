import pytest

from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import resnet18, resnet50
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.summary import flops, parameters, summary

TINY = EncoderDecoder(Plain((3, 4)), FCN((1, 2), 2), Pixel(2, scores=True))


@pytest.mark.parametrize(
    "model, channels, expected",
    [
        (
            EncoderDecoder(Plain(padded=False), UNet(refine=DoubleConv(padded=False)), Pixel(2)),
            1,
            {"encoder": 18_842_048, "decoder": 12_188_480, "head": 130},
        ),
        (
            EncoderDecoder(resnet50(), FPN(), Merge(21)),
            3,
            {"encoder": 23_508_032, "decoder": 3_344_384, "head": 1_626_517},
        ),
        (
            EncoderDecoder(resnet18(), FCN((32,), 21), Pixel(21, scores=True)),
            3,
            {"encoder": 11_176_512, "decoder": 513 * 21, "head": 0},
        ),
    ],
    ids=["unet", "fpn", "fcn32s"],
)
def test_parameters_by_part(model, channels, expected):
    assert parameters(model, channels) == expected


def test_flops_are_two_for_every_multiplication():
    """3x3 convolutions of 3 -> 3 -> 3 and, at a quarter of the pixels, 3 -> 4 -> 4 channels."""
    height, width = 16, 24
    counted = flops(TINY, (height, width))
    products = 2 * height * width * 9 * (3 * 3 + 3 * 3 + (3 * 4 + 4 * 4) / 4)
    assert 0.9 * products < counted < 1.4 * products


def test_flops_grow_with_the_image():
    assert 3.6 < flops(TINY, (32, 32)) / flops(TINY, (16, 16)) < 4.4


def test_summary_shows_layers_parameters_and_geometry(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = summary(TINY, (15, 18))
    for shown in ("encoder/conv1_s1", "decoder/lateral_s2", "Total Parameters", "[1,15,18,2]"):
        assert shown in text, shown
    assert "receptive_field=" in text and "input=(15, 18)" in text
    total = sum(parameters(TINY).values())
    assert f"{total:,}" in text
