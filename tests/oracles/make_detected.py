"""Writes detected.npz and losses.npz beside it: `python -m tests.oracles.make_detected`.

What torchvision's detectors find with the weights and images of `detected`, in float64, and what
their losses are; coordinates in our order (y, x).
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from tests.oracles import box_cases, cases, detected, make_boxes, make_detection
from tests.oracles.cases import Case
from tests.oracles.detection import CLASSES, KINDS, WIDTH
from tests.oracles.make_boxes import FLIP
from tests.oracles.make_detection import IMAGENET, SSD

from torchvision.models import detection as library  # isort: skip (after the operators)
from torchvision.models.detection import anchor_utils, retinanet, roi_heads, rpn, ssd
from torchvision.models.detection._utils import BoxCoder, Matcher, SSDMatcher
from torchvision.ops import MultiScaleRoIAlign, feature_pyramid_network

aligning = sys.modules["torchvision.ops.roi_align"]
inside = aligning._bilinear_interpolate


def as_compiled(
    maps: torch.Tensor, index: torch.Tensor, y: torch.Tensor, x: torch.Tensor, *masks: None
) -> torch.Tensor:
    """What the compiled operator reads: 0 more than a cell outside the map, not its edge."""
    here = [(at >= -1) & (at <= n) for at, n in zip((y, x), maps.shape[2:], strict=True)]
    both = here[0][:, None, :, None, :, None] * here[1][:, None, None, :, None, :]
    return inside(maps, index, y, x, *masks) * both


if hasattr(aligning._roi_align, "__wrapped__"):
    aligning._roi_align = aligning._roi_align.__wrapped__  # not compiled by torch either
    aligning._bilinear_interpolate = as_compiled

Found = dict[str, np.ndarray]
AS_GIVEN = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
PYRAMID = {"min_size": 64, "max_size": 128, **AS_GIVEN}


def narrow_retinanet() -> nn.Module:
    extra = feature_pyramid_network.LastLevelP6P7(WIDTH, WIDTH)
    return retinanet.RetinaNet(
        make_detection.backbone((2, 3, 4), extra),
        CLASSES,
        head=retinanet.RetinaNetHead(WIDTH, KINDS, CLASSES),
        anchor_generator=retinanet._default_anchorgen(),
        topk_candidates=detected.CANDIDATES,
        detections_per_img=detected.NUMBER,
        **PYRAMID,
    )


def narrow_ssd() -> nn.Module:
    given = make_detection.narrow_ssd()
    boxes = anchor_utils.DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    return ssd.SSD(
        given.backbone,
        boxes,
        (300, 300),
        CLASSES,
        head=given.head,
        topk_candidates=detected.CANDIDATES,
        detections_per_img=detected.NUMBER,
        **AS_GIVEN,
    )


def narrow_two_stage(mask: bool) -> nn.Module:
    given = make_detection.narrow_two_stage()
    heads, levels = given.roi_heads, ["0", "1", "2", "3"]

    def pool(size: int) -> nn.Module:
        return MultiScaleRoIAlign(levels, size, 2, canonical_scale=detected.CANONICAL)

    settings = {
        "rpn_head": given.rpn.head,
        "rpn_pre_nms_top_n_test": detected.CANDIDATES,
        "rpn_post_nms_top_n_test": detected.PROPOSALS,
        "box_roi_pool": pool(7),
        "box_head": heads.box_head,
        "box_predictor": heads.box_predictor,
        "box_detections_per_img": detected.NUMBER,
        **PYRAMID,
    }
    if mask:
        settings |= {"mask_roi_pool": pool(14), "mask_head": heads.mask_head}
        settings |= {"mask_predictor": heads.mask_predictor}
    return (library.MaskRCNN if mask else library.FasterRCNN)(given.backbone, **settings)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "retinanet": narrow_retinanet,
    "ssd300": narrow_ssd,
    "fasterrcnn": lambda: narrow_two_stage(False),
    "maskrcnn": lambda: narrow_two_stage(True),
}


def whole(name: str) -> nn.Module:
    """torchvision's net of that name, in full size, for 91 classes."""
    rows, columns = detected.WHOLE[name].size[1:3]
    sizes = {"min_size": rows, "max_size": columns, **AS_GIVEN}
    return getattr(library, name)(weights=None, weights_backbone=None, **sizes)


def found(name: str, net: nn.Module, case: Case) -> Found:
    """What a net that gets its weights here finds: "0/boxes" in the first image, …"""
    net = net.double().eval()
    for path, tensor in net.state_dict().items():
        if tensor.ndim:
            tensor.copy_(torch.from_numpy(detected.tensor(path, tuple(tensor.shape), name)))
    mean, std = SSD if hasattr(net.backbone, "scale_weight") else IMAGENET
    images = torch.from_numpy((cases.images(case) - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        best, more = (two_stage if hasattr(net, "rpn") else one_stage)(net, images)
    for i, one in enumerate(best):
        one["boxes"] = one["boxes"][:, FLIP]
        more |= {f"{i}/{part}": x.numpy() for part, x in one.items()}
    return more


def one_stage(net: nn.Module, images: torch.Tensor) -> tuple[list, Found]:
    return net(list(images)), {}


def two_stage(net: nn.Module, images: torch.Tensor) -> tuple[list, Found]:
    """The proposals too: all of them before suppression ("every"), and those that are left."""
    batch, _ = net.transform(list(images))
    maps = net.backbone(batch.tensors)
    scores, deltas = net.rpn.head(list(maps.values()))
    anchors = net.rpn.anchor_generator(batch, list(maps.values()))
    _, deltas = rpn.concat_box_prediction_layers(scores, deltas)
    every = net.rpn.box_coder.decode(deltas, anchors).reshape(len(images), -1, 4)
    proposals, _ = net.rpn(batch, maps)
    best, _ = net.roi_heads(maps, proposals, batch.image_sizes)  # masks as they are, not pasted
    for one in best:
        if "masks" in one:
            one["masks"] = one["masks"][:, 0]
    more = {"every": every[..., FLIP].numpy()}
    return best, more | {f"{i}/proposals": x[:, FLIP].numpy() for i, x in enumerate(proposals)}


def computed(name: str) -> Found:
    """Of a narrow net; what is large as a sketch."""
    parts = found(name, BUILDERS[name](), detected.CASES[name])
    large = {"every", "0/masks", "1/masks"}
    return {
        f"{name}/{key}": cases.sketch(key, x) if key in large else x.astype(np.float32)
        for key, x in parts.items()
    }


def losses() -> Found:
    """Of one image, on the anchors of `make_boxes`; every anchor is drawn."""
    anchors = {name: torch.from_numpy(x) for name, x in make_boxes.anchors().items()}
    truth = {name: torch.from_numpy(x) for name, x in detected.truth().items()}
    target = {"boxes": truth["boxes"][:, FLIP], "labels": truth["classes"].long()}
    with_background = target | {"labels": target["labels"] + 1}

    def given(name: str, rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(map(torch.from_numpy, detected.given(name, rows, classes)))

    answer = {}
    own = anchors["rpn"][:, FLIP]
    net = rpn.RegionProposalNetwork(
        None, None, 0.7, 0.3, len(own), 1.0, {}, {}, 0.7
    )  # fmt: skip
    labels, matched = net.assign_targets_to_anchors([own], [target])
    logits, deltas = given("rpn", len(own), 1)
    targets = net.box_coder.encode(matched, [own])
    answer["rpn"] = net.compute_loss(logits, deltas, labels, targets)

    own = anchors["retinanet"][:, FLIP]
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    matched = matcher(make_boxes.ops.box_iou(target["boxes"], own))
    logits, deltas = given("retinanet", len(own), CLASSES)
    head = retinanet.RetinaNetHead(WIDTH, KINDS, CLASSES)
    outputs = {"cls_logits": logits[None], "bbox_regression": deltas[None]}
    parts = head.compute_loss([target], outputs, [own], [matched])
    answer["retinanet"] = parts["classification"], parts["bbox_regression"]

    own = anchors["ssd"][:, FLIP]
    matched = SSDMatcher(0.5)(make_boxes.ops.box_iou(target["boxes"], own))
    logits, deltas = given("ssd", len(own), CLASSES)
    outputs = {"cls_logits": logits[None], "bbox_regression": deltas[None]}
    settings = SimpleNamespace(box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    parts = ssd.SSD.compute_loss(settings, [with_background], outputs, [own], [matched])
    answer["ssd"] = parts["classification"], parts["bbox_regression"]

    own = torch.from_numpy(detected.regions())[:, FLIP]
    heads = roi_heads.RoIHeads(
        None, None, None, 0.5, 0.5, len(own) + detected.TRUTH, 1.0, None, 0.05, 0.5, 100
    )
    chosen, _, labels, targets = heads.select_training_samples([own], [with_background])
    logits, deltas = given("regions", len(chosen[0]), CLASSES)
    deltas = deltas[:, None] * torch.arange(1.0, CLASSES + 1)[None, :, None]
    parts = roi_heads.fastrcnn_loss(logits, deltas.flatten(1), labels, targets)
    answer["regions"] = parts
    return {name: np.float32([float(x) for x in pair]) for name, pair in answer.items()}


def main() -> None:
    every = {key: x for name in BUILDERS for key, x in computed(name).items()}
    np.savez_compressed(cases.FOLDER / "detected.npz", **every)
    np.savez(cases.FOLDER / "losses.npz", **losses())
    assert box_cases.SIZE == (64, 128)
    for name in ("detected", "losses"):
        print(f"{name}: {(cases.FOLDER / f'{name}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
