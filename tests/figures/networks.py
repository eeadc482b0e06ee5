"""Small networks of every kind, by name, and the sizes of those that do not take any."""

from functools import cache

import encdec
from encdec import papers
from encdec.anchors import pyramid, single
from encdec.decoders.fpn import FORMS, FPN, Strided, Subsample, ablated
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet
from encdec.encoders.ssd import SSDTrunk
from encdec.encoders.vgg import VGG
from encdec.figures.architecture import Architecture, architecture
from encdec.figures.draw import Picture
from encdec.figures.drawing import Drawing
from encdec.figures.layout import Layout
from encdec.heads.dilated import Dilated

SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)
THIN = VGG(convs=(1, 1, 1, 1, 1), channels=(2, 3, 4, 5, 6), pad=100, fc=(7, 8))
RESNET = ResNet((1, 1, 1, 1), width=8)


def on(decoder, head, encoder=RESNET):
    return encdec.EncoderDecoder(encoder, decoder, head)


def ablation(form):
    decoder = ablated(form, FPN(channels=16, coarser=Subsample()))
    alone = {"a": 16, "b": 32, "f": 4}
    anchors = single(alone[form], SIDES) if form in alone else pyramid(SIDES)
    return on(decoder, encdec.rpn(anchors, 16))


WIDE = UNet((2, 4, 8, 16, 32), (40, 30, 20, 10), refine=DoubleConv(norm="batch"))
NETWORKS = {
    **{
        name: getattr(papers, name)(5).clone(encoder=THIN) for name in ("fcn32s", "fcn16s", "fcn8s")
    },
    "at once": papers.fcn8s_at_once(5).clone(encoder=THIN),
    "unet": papers.unet(2, 4),
    "padded unet": on(UNet((1, 2, 4), (6, 4)), encdec.Pixel(3), encdec.Plain((4, 6, 8))),
    "unet on resnet": on(WIDE, encdec.Pixel(3)),
    "unet that adds": on(
        UNet((1, 2, 4), (6, 4), upsample=UpConv(start="nearest"), merge="add"),
        encdec.Pixel(3),
        encdec.Plain((4, 6, 8)),
    ),
    "deep supervision": on(WIDE.clone(levels="every"), encdec.Pixel(3, deep=True)),
    "smp unet": papers.smp_unet(3, RESNET, attention=True),
    "semantic fpn": on(FPN(channels=16), encdec.Merge(5, 32)),
    "fpn that concatenates": on(FPN(channels=16, merge="concatenate"), encdec.Merge(5, 32)),
    "one level merged": on(FPN(channels=16, levels="finest"), encdec.Merge(5, 32)),
    "rpn": papers.fpn_rpn(RESNET),
    "regions": papers.fpn_fast_rcnn(5, RESNET, mask=True),
    "masks": papers.fpn_masks(RESNET),
    "retinanet": papers.retinanet(5, RESNET),
    "p6 of c5": papers.retinanet(5, RESNET).clone(decoder=FPN((8, 16, 32), 16, coarser=Strided())),
    "ssd300": papers.ssd300(5).clone(
        encoder=SSDTrunk(
            (1,) * 5, (2, 3, 4, 5, 6), (7, 8), tuple((s, 3, 9) for s in (32, 64, 100, 300))
        )
    ),
    "dilated": on(
        encdec.FCN(strides=(8,), lateral=Copy()),
        Dilated(5, (64, 128, 256)),
        ResNet((1, 1, 1, 1), "bottleneck", 8, output_stride=8, together=True),
    ),
    "image classes": on(FPN(channels=16), encdec.Pooled(4)),
    **{f"form {form}": ablation(form) for form in FORMS},
}
SIZES = {"unet": (188, 204), "ssd300": (300, 300)}


@cache
def found(name: str) -> Architecture:
    """What it does with images whose sides differ."""
    return architecture(NETWORKS[name], SIZES.get(name, (130, 160)))


def drawn(name: str, plain: bool = False, title: str = "it") -> Drawing:
    """As `encdec.draw` draws it."""
    return Picture(Layout(found(name), plain)).drawing(title)
