import pytest

from encdec import papers
from encdec.anchors import pyramid
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import resnet18, resnet50
from encdec.encoders.vgg import VGG
from encdec.heads.dense import Dense
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.memory import step_memory
from encdec.model import EncoderDecoder
from encdec.summary import flops, parameters, summary
from encdec.train.optimizer import Optimizer

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
            papers.retinanet(91),
            3,
            {"encoder": 23_508_032, "decoder": 3_868_672, "head": 6_691_415},
        ),
        (
            papers.ssd300(91),
            3,
            {"encoder": 22_943_424, "decoder": 0, "head": 12_698_402},
        ),
        (
            EncoderDecoder(resnet18(), FCN((32,), 21), Pixel(21, scores=True)),
            3,
            {"encoder": 11_176_512, "decoder": 513 * 21, "head": 0},
        ),
    ],
    ids=["unet", "fpn", "retinanet", "ssd300", "fcn32s"],
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


def test_summary_lists_layers_with_shapes_parameters_and_flops():
    header, rule, *lines, last, _ = summary(TINY, (160, 240)).splitlines()
    assert header.split() == ["layer", "output", "parameters", "MFLOPs"] and set(rule) == {"-"}
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    # By hand: 2 x cells x kernel entries; a transposed convolution's cells are its input's.
    assert rows["encoder/conv1_s1"] == ["160x240x3", "84", "6.2"]
    assert rows["encoder/conv2_s2"] == ["80x120x4", "148", "2.8"]
    assert rows["encoder"] == ["160x240x3", "80x120x4", "428", "17.3"]
    assert rows["decoder/lateral_s1"] == ["160x240x2", "8", "0.5"]
    assert rows["decoder/upsample_s1"] == ["160x240x2", "64", "1.2"]
    assert rows["head"] == ["160x240x2", "0", "0.0"]
    assert rows["all"] == ["160x240x2", "510", "19.1"]
    assert last.startswith("input (160, 240), output (160, 240), margin (0, 0), stride 1, ")


def test_fixed_upsampling_has_work_and_no_parameters():
    model = papers.fcn((16, 32), 21, "fixed", encoder=VGG((1,) * 5, (2,) * 5, pad=100, fc=(2, 2)))
    lines = summary(model, (200, 200), batch=1).splitlines()
    found = next(line.split() for line in lines if line.startswith("decoder/upsample_s16"))
    assert found[2] == "0" and float(found[3]) > 0
    head = next(line.split() for line in lines if line.startswith("head/deconvolution"))
    assert head[2] == "0" and float(head[3]) > 0


def test_summary_of_a_net_that_predicts_boxes():
    """Its head's layers work on every level: 8x12 and 4x6 cells."""
    head = Dense(5, pyramid((8.0, 16.0), (1, 2)), depth=1, channels=4)
    model = EncoderDecoder(Plain((3, 4)), FPN((1, 2), 4), head)
    text = summary(model, (8, 12), batch=2)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    work = 2 * (8 * 12 + 4 * 6) * 9 * 4 * 15 / 1e6
    assert rows["head/class_score"] == ["8x12x15", "555", f"{work:,.1f}"]
    assert "output (8, 12), margin (0, 0), stride 1" in text
    assert text.splitlines()[-1].startswith("training on 2 images: about ")


def test_summary_of_an_unpadded_net_is_of_the_next_good_size():
    model = EncoderDecoder(Plain(padded=False), UNet(refine=DoubleConv(padded=False)), Pixel(2))
    text = summary(model, (512, 512), channels=1)
    assert "31,030,658" in text and "388x388x2" not in text and "340x340x2" in text
    assert (
        "\ninput (524, 524), output (340, 340), margin (92, 92), stride 1, receptive field 204\n"
        in text
    )


def test_summary_ends_with_the_memory_of_a_step_of_that_batch_and_optimizer():
    held = step_memory(TINY, (160, 240), 4, Optimizer("sgd")) / 2**20
    text = summary(TINY, (160, 240), batch=4, optimizer=Optimizer("sgd"))
    assert text.splitlines()[-1] == f"training on 4 images: about {held:.0f} MiB"
    assert summary(TINY, (64, 64), batch=1).splitlines()[-1].startswith("training on 1 image: ")
