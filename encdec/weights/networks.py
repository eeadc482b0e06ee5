"""Published names of whole networks, and which table an encoder has.

Sources: torchvision; timm; smp, segmentation_models.pytorch; caffe, FCN's release as a .npz of
`LAYER.0`, weights, and `LAYER.1`, biases; keras and theano, the retina U-Net of Keras 1.
"""

from collections.abc import Iterator
from typing import Literal

from flax import linen as nn

from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import UNet
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.convnext import ConvNeXt
from encdec.encoders.densenet import DenseNet
from encdec.encoders.efficientnet import EfficientNet
from encdec.encoders.mobilenet import MobileNetV2, MobileNetV3
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet
from encdec.encoders.ssd import SSDTrunk
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.heads.dilated import Dilated
from encdec.model import EncoderDecoder
from encdec.weights import convnext, densenet, detection, efficientnet, mobilenet, resnet, ssd, vgg
from encdec.weights.convert import within

Source = Literal["torchvision", "timm", "smp", "caffe", "keras", "theano"]

FAMILIES = {
    ConvNeXt: convnext,
    DenseNet: densenet,
    EfficientNet: efficientnet,
    MobileNetV2: mobilenet,
    MobileNetV3: mobilenet,
    ResNet: resnet,
    SSDTrunk: ssd,
    VGG: vgg,
}
"""The file of each encoder's names."""

Pairs = Iterator[tuple[str, str]]


def names(part: nn.Module, source: Source) -> Pairs:
    """Pairs (ours, theirs) of a network, an encoder or a decoder.

    Raises:
      InputError: the source has no such thing.
    """
    if source == "caffe" and isinstance(part, VGG | AlexNet):
        return _caffe_trunk(part)
    if type(part) in FAMILIES:
        return FAMILIES[type(part)].names(part, source)
    if source == "torchvision" and isinstance(part, FPN):
        return detection.pyramid(part)
    if isinstance(part, EncoderDecoder):
        if source == "torchvision" and detection.detects(part):
            return detection.names(part, names(part.encoder, source))
        if source == "torchvision" and isinstance(part.head, Dilated):
            return _dilated(part)
        if source == "caffe" and isinstance(part.decoder, FCN):
            return _caffe(part)
        if source == "smp" and isinstance(part.decoder, UNet | FPN):
            return _smp(part)
        if source in ("keras", "theano") and isinstance(part.encoder, Plain):
            return _keras(part)
    raise InputError(f"{source} has no names for a {_title(part)}: name another source or network")


def spare(part: nn.Module, source: Source, name: str) -> bool:
    """Whether a published tensor may be left out: it counts batches, belongs to a classifier that
    an encoder has not, is never used there, or is a fixed bilinear kernel."""
    heads: tuple[str, ...] = FAMILIES[type(part)].HEADS if type(part) in FAMILIES else ()
    if isinstance(part, EncoderDecoder) and source == "smp" and isinstance(part.decoder, UNet):
        # smp makes an attention for a skip at its last level, where there is none.
        heads = (f"decoder.blocks.{len(part.decoder.walk()) - 2}.attention1",)
    if isinstance(part, EncoderDecoder) and source == "smp":
        family = FAMILIES.get(type(part.encoder))
        heads += tuple(f"encoder.{head}" for head in family.HEADS) if family else ()
    if isinstance(part, VGG) and source == "caffe":
        heads = ("fc6", "fc7", "fc8")
    if isinstance(part, EncoderDecoder) and source == "caffe":
        fixed = getattr(part.head, "upsample", "") == "fixed"
        heads = ("upscore", "upscore2", "upscore_pool4", "upscore8", "upscore16") if fixed else ()
    beside = any(name == head or name.startswith(f"{head}.") for head in heads)
    return beside or name.endswith("num_batches_tracked")


def _title(part: nn.Module) -> str:
    if isinstance(part, EncoderDecoder):
        return " + ".join(type(p).__name__ for p in (part.encoder, part.decoder, part.head))
    return type(part).__name__


def _dilated(model: EncoderDecoder) -> Pairs:
    """torchvision's fcn_resnet50 and fcn_resnet101."""
    yield from within(names(model.encoder, "torchvision"), "encoder", "backbone.")
    for ours, theirs in (("logits", "classifier"), ("aux", "aux_classifier")):
        yield f"head/{ours}_conv/conv", f"{theirs}.0"
        yield f"head/{ours}_conv/norm/batch", f"{theirs}.1"
        yield f"head/{ours}_score", f"{theirs}.4"


def _smp(model: EncoderDecoder) -> Pairs:
    """smp's Unet and FPN."""
    yield from within(names(model.encoder, "smp"), "encoder", "encoder.")
    yield "head/score", "segmentation_head.0"
    strides = [stride for stride, _ in model.decoder.walk()]
    if isinstance(model.decoder, UNet):
        for i, stride in enumerate(strides[1:]):
            ours, theirs = f"decoder/refine_s{stride}", f"decoder.blocks.{i}"
            for n in (1, 2):
                yield f"{ours}/conv{n}/conv", f"{theirs}.conv{n}.0"
                yield f"{ours}/conv{n}/norm/batch", f"{theirs}.conv{n}.1"
                attention = f"{theirs}.attention{n}.attention"
                yield f"{ours}/attention{n}/squeeze", f"{attention}.cSE.1"
                yield f"{ours}/attention{n}/excite", f"{attention}.cSE.3"
                yield f"{ours}/attention{n}/cells", f"{attention}.sSE.0"
        return
    for i, stride in enumerate(strides):
        level = stride.bit_length() - 1
        lateral = "p5" if i == 0 else f"p{level}.skip_conv"
        yield f"decoder/lateral_s{stride}/conv", f"decoder.{lateral}"
        for n in range(max(1, (stride // strides[-1]).bit_length() - 1)):
            ours, theirs = f"head/stage_s{stride}_from{stride >> n}", f"decoder.seg_blocks.{i}"
            yield f"{ours}/conv", f"{theirs}.block.{n}.block.0"
            yield f"{ours}/norm/group", f"{theirs}.block.{n}.block.1"


def _caffe_trunk(encoder: VGG | AlexNet) -> Pairs:
    """Layers of the release have our names."""
    if isinstance(encoder, VGG):
        for stage, convs in enumerate(encoder.convs, 1):
            for i in range(1, convs + 1):
                yield f"conv{stage}_{i}/conv", f"conv{stage}_{i}"
    else:
        for i in range(1, 6):
            yield f"conv{i}", f"conv{i}"
    for i in range(len(encoder.fc)):
        yield f"fc{i + 6}", f"fc{i + 6}"


def _caffe(model: EncoderDecoder) -> Pairs:
    """FCN-32s, 16s and 8s, FCN-AlexNet; one score layer a stride, one deconvolution a step."""
    yield from within(_caffe_trunk(model.encoder), "encoder", "")
    strides = sorted(model.decoder.strides, reverse=True)
    pools = {16: "pool4", 8: "pool3"}
    for stride in strides:
        yield f"decoder/lateral_s{stride}/conv", f"score_{pools.get(stride, 'fr')}"
    for coarser, stride in zip(strides, strides[1:], strict=False):
        pool = "2" if coarser == 32 else f"_{pools[coarser]}"
        yield f"decoder/upsample_s{stride}/conv", f"upscore{pool}"
    last = {32: "upscore", 16: "upscore16", 8: "upscore8"}[strides[-1]]
    yield "head/deconvolution", last


def _keras(model: EncoderDecoder) -> Pairs:
    """Convolutions in the order in which they run."""
    widths, strides = model.encoder.channels, [s for s, _ in model.decoder.walk()[1:]]
    layers = [f"encoder/conv{i}_s{2**n}/conv" for n in range(len(widths)) for i in (1, 2)]
    layers += [f"decoder/refine_s{stride}/conv{i}/conv" for stride in strides for i in (1, 2)]
    for number, layer in enumerate([*layers, "head/score"], 1):
        yield layer, f"convolution2d_{number}"


def as_published(encoder: nn.Module, source: Source) -> nn.Module:
    """The encoder with the pixels' mean and deviation, RGB in [0, 1], that the source's weights
    were trained with, and what else of its fields they want (epsilon, padding).

    Of smp, timm and torchvision the pixels are ImageNet's, with which our encoders are made; of
    Caffe the means alone, on a scale of 255; of the retina U-Net nothing.
    """
    if source == "caffe":
        mean = tuple(m / 255 for m in (122.67892, 116.66877, 104.00699))
        return encoder.clone(mean=mean, std=(1 / 255,) * 3)
    if source in ("keras", "theano"):
        return encoder.clone(mean=(0.0,), std=(1.0,))
    fresh, family = type(encoder)(), FAMILIES[type(encoder)]
    mean, std = fresh.mean, fresh.std
    if hasattr(family, "pixels"):
        mean, std = family.pixels(encoder, source)
    fields = family.fields(encoder, source) if hasattr(family, "fields") else {}
    return encoder.clone(mean=mean, std=std, **fields)
