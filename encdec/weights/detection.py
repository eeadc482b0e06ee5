"""torchvision's names of detectors and of their parts, as `state_dict()` of a model gives them.

Files that torchvision 0.12 or older wrote have others: load them there first.
"""

from collections.abc import Iterator
from typing import Any

from flax import linen as nn

from encdec.decoders.fpn import FPN, Strided
from encdec.encoders.ssd import SSDTrunk
from encdec.heads.dense import Dense
from encdec.heads.per_level import PerLevel
from encdec.model import EncoderDecoder
from encdec.weights.convert import within

Pairs = Iterator[tuple[str, str]]


def detects(model: nn.Module) -> bool:
    """Whether it is a network of this page: RetinaNet, SSD, or of two stages, with `rpn`, `box`."""
    if not isinstance(model, EncoderDecoder):
        return False
    one_stage = isinstance(model.head, Dense) and not model.head.together
    return one_stage or isinstance(model.head, PerLevel) or hasattr(model.head, "rpn")


def names(model: EncoderDecoder, encoder: Pairs) -> Pairs:
    """Of retinanet_resnet50_fpn and its _v2, ssd300_vgg16, fasterrcnn_resnet50_fpn and
    maskrcnn_resnet50_fpn.

    Args:
      encoder: the encoder's own pairs.
    """
    head = model.head
    yield from within(encoder, "encoder", "backbone." + "body." * (not ssd(model)))
    yield from within(pyramid(model.decoder), "decoder", "backbone.fpn.")
    if isinstance(head, PerLevel):
        yield from within(per_level(head, model.decoder.outputs()), "head", "")
    elif isinstance(head, Dense):
        yield from within(subnets(head), "head", "head.")
    else:
        yield from within(rpn(head.rpn), "head/rpn", "rpn.head.")
        yield from within(BOX, "head/box", "roi_heads.")
        if getattr(head, "mask", None) is not None:
            yield from within(mask(head.mask), "head/mask", "roi_heads.")


def ssd(model: EncoderDecoder) -> bool:
    """Whether the backbone is SSD's own."""
    return isinstance(model.encoder, SSDTrunk)


def pyramid(decoder: FPN) -> Pairs:
    """FeaturePyramidNetwork; its extra levels are convolutions in RetinaNet alone."""
    for i, stride in enumerate(sorted(decoder.strides)):
        yield f"lateral_s{stride}/conv", f"inner_blocks.{i}.0"
        yield f"output_s{stride}/conv", f"layer_blocks.{i}.0"
    if isinstance(decoder.coarser, Strided):
        for i, stride in enumerate(decoder.above(), 6):
            yield f"output_s{stride}/conv", f"extra_blocks.p{i}"


def subnets(head: Dense) -> Pairs:
    """RetinaNetHead; the second version has GroupNorm."""
    parts = (("class", "classification", "class_score", "cls_logits"),
             ("box", "regression", "box_deltas", "bbox_reg"))  # fmt: skip
    for tower, theirs, last, predicts in parts:
        for i in range(head.depth):
            yield f"{tower}_conv{i + 1}", f"{theirs}_head.conv.{i}.0"
            yield f"{tower}_norm{i + 1}/group", f"{theirs}_head.conv.{i}.1"
        yield last, f"{theirs}_head.{predicts}"


def rpn(head: Dense) -> Pairs:
    """RPNHead."""
    for i in range(head.depth):
        yield f"conv{i + 1}", f"conv.{i}.0"
    yield "class_score", "cls_logits"
    yield "box_deltas", "bbox_pred"


def per_level(head: PerLevel, strides: tuple[int, ...]) -> Pairs:
    """SSDHead, and the scale of conv4_3, which torchvision counts to the backbone."""
    for i, stride in enumerate(strides):
        yield f"class_s{stride}", f"head.classification_head.module_list.{i}"
        yield f"box_s{stride}", f"head.regression_head.module_list.{i}"
    if head.rescale:
        yield "rescale/scale", "backbone.scale_weight"


BOX = (
    ("fc6", "box_head.fc6"),
    ("fc7", "box_head.fc7"),
    ("class_score", "box_predictor.cls_score"),
    ("box_deltas", "box_predictor.bbox_pred"),
)
"""TwoMLPHead and FastRCNNPredictor."""


def mask(head: Any) -> Pairs:
    """MaskRCNNHeads and MaskRCNNPredictor."""
    for i in range(head.depth):
        yield f"conv{i + 1}", f"mask_head.{i}.0"
    yield "deconvolution", "mask_predictor.conv5_mask"
    yield "mask_score", "mask_predictor.mask_fcn_logits"
