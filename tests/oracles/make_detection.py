"""Writes the detectors' files of raw outputs: `python -m tests.oracles.make_detection`.

Needs torch and torchvision (`pip install -e '.[bench]'`); reading the files does not. PyTorch
computes in float64.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.networks import declare_operators
from tests.oracles import cases, detection, networks
from tests.oracles.cases import Case
from tests.oracles.detection import CASES, CLASSES, KINDS, WIDTH

if not torch.cuda.is_available():
    declare_operators()

from torchvision.models import detection as library  # noqa: E402
from torchvision.models import vgg16  # noqa: E402
from torchvision.models.detection import faster_rcnn, mask_rcnn, retinanet, rpn, ssd  # noqa: E402
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # noqa: E402
from torchvision.ops import feature_pyramid_network as pyramid  # noqa: E402

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
SSD = np.array([[0.48235, 0.45882, 0.40784], [1 / 255, 1 / 255, 1 / 255]])
"""Mean and deviation that our encoders subtract and divide by."""

SSD_KINDS = [4, 6, 6, 6, 4, 4]
"""Boxes of a cell of each of SSD's levels."""

PLACES = ((0, 0), (1, 2), (2, 0))
"""Cells of the finest map where regions begin."""

Outputs = dict[str, torch.Tensor]


def parts(**modules: nn.Module) -> nn.Module:
    """A module of these, without a forward pass of its own."""
    net = nn.Module()
    for name, module in modules.items():
        net.add_module(name, module)
    return net


def backbone(stages: tuple[int, ...], extra: nn.Module) -> nn.Module:
    trunk = networks.resnet("bottleneck", (1, 1, 1, 1), 4)()
    layers = {f"layer{stage}": str(i) for i, stage in enumerate(stages)}
    widths = [8 * 2**stage for stage in stages]
    return BackboneWithFPN(trunk, layers, widths, WIDTH, extra)


def narrow_retinanet() -> nn.Module:
    extra = pyramid.LastLevelP6P7(WIDTH, WIDTH)
    head = retinanet.RetinaNetHead(WIDTH, KINDS, CLASSES)
    return parts(backbone=backbone((2, 3, 4), extra), head=head)


def narrow_ssd() -> nn.Module:
    """torchvision's, every convolution with a 32nd of the channels."""
    trunk = ssd._vgg_extractor(vgg16(weights=None), False, 5)
    for module in list(trunk.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, nn.Conv2d):
                inputs = conv.in_channels // 32 or 3
                same = {k: getattr(conv, k) for k in ("stride", "padding", "dilation")}
                new = nn.Conv2d(inputs, conv.out_channels // 32, conv.kernel_size, **same)
                setattr(module, name, new)
    trunk.scale_weight = nn.Parameter(torch.ones(16))
    head = ssd.SSDHead([16, 32, 16, 8, 8, 8], SSD_KINDS, CLASSES)
    return parts(backbone=trunk, head=head)


def narrow_two_stage() -> nn.Module:
    heads = parts(
        box_head=faster_rcnn.TwoMLPHead(49 * WIDTH, 16),
        box_predictor=faster_rcnn.FastRCNNPredictor(16, CLASSES),
        mask_head=mask_rcnn.MaskRCNNHeads(WIDTH, (WIDTH, WIDTH), 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(WIDTH, WIDTH, CLASSES),
    )
    trunk = backbone((1, 2, 3, 4), pyramid.LastLevelMaxPool())
    return parts(backbone=trunk, rpn=parts(head=rpn.RPNHead(WIDTH, 3)), roi_heads=heads)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "retinanet": narrow_retinanet,
    "ssd300": narrow_ssd,
    "two_stage": narrow_two_stage,
}


def whole(name: str) -> nn.Module:
    """torchvision's net of that name, in full size, for 91 classes."""
    return getattr(library, name)(weights=None, weights_backbone=None)


def by_level(found: Outputs, maps: list[torch.Tensor], kinds: list[int]) -> Outputs:
    """What torchvision has in one array for all levels, fine to coarse: "class/0", "box/0", …"""
    counts = [x.shape[2] * x.shape[3] * n for x, n in zip(maps, kinds, strict=True)]
    return {
        f"{name}/{level}": rows
        for name, x in found.items()
        for level, rows in enumerate(x.split(counts, 1))
    }


def one_stage(net: nn.Module, images: torch.Tensor) -> Outputs:
    maps = list(net.backbone(images).values())
    found, kinds = net.head(maps), SSD_KINDS if is_ssd(net) else [KINDS] * len(maps)
    return by_level({"class": found["cls_logits"], "box": found["bbox_regression"]}, maps, kinds)


def is_ssd(net: nn.Module) -> bool:
    return hasattr(net.backbone, "scale_weight")


def two_stage(net: nn.Module, images: torch.Tensor) -> Outputs:
    """RPN of all levels; box and mask heads on regions cut from the finest."""
    maps = list(net.backbone(images).values())
    scores, deltas = rpn.concat_box_prediction_layers(*net.rpn.head(maps))
    b = len(images)
    both = {"class": scores.reshape(b, -1, 1), "box": deltas.reshape(b, -1, 4)}
    outputs = by_level(both, maps, [3] * len(maps))

    def cut(size: int) -> torch.Tensor:
        both = [maps[0][:, :, i : i + size, j : j + size] for i, j in PLACES]
        return torch.stack(both, 1).flatten(0, 1)

    heads = net.roi_heads
    logits, boxes = heads.box_predictor(heads.box_head(cut(7)))
    outputs["region_class"] = logits.reshape(b, len(PLACES), -1)
    outputs["region_box"] = boxes.reshape(b, len(PLACES), -1, 4)
    if getattr(heads, "mask_head", None) is not None:
        masks = heads.mask_predictor(heads.mask_head(cut(14))).permute(0, 2, 3, 1)
        outputs["region_mask"] = masks.reshape(b, len(PLACES), *masks.shape[1:])
    return outputs


def outputs(net: nn.Module, case: Case) -> dict[str, np.ndarray]:
    """Raw outputs of a net that gets its weights here."""
    net = net.double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.ndim:
            tensor.copy_(torch.from_numpy(detection.tensor(name, tuple(tensor.shape))))
    mean, std = SSD if is_ssd(net) else IMAGENET
    images = torch.from_numpy((cases.images(case) - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = (two_stage if hasattr(net, "rpn") else one_stage)(net, images)
    return {name: x.numpy() for name, x in found.items()}


def computed(name: str) -> dict[str, np.ndarray]:
    """Sketches of a narrow net's outputs."""
    found = outputs(BUILDERS[name](), CASES[name])
    return {f"{key}/output": cases.sketch(key, x) for key, x in found.items()}


def main() -> None:
    for name in CASES:
        np.savez(cases.FOLDER / f"{name}.npz", **computed(name))
        print(f"{name}: {(cases.FOLDER / f'{name}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
