"""Writes boxes.npz beside it: `python -m tests.oracles.make_boxes`.

What torchvision makes of the boxes and maps of `box_cases`, in our order (y, x) of coordinates.
"""

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.networks import declare_operators
from tests.oracles import box_cases
from tests.oracles.cases import FOLDER, sketch


def greedy(found: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Suppression in plain Python, for a torchvision without its compiled operators.

    Boxes without area, whose IoU is no number, suppress nothing and are kept, as there.
    """
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[~(ops.box_iou(found[best][None], found[order])[0] > threshold)]
    return torch.stack(kept) if kept else order


if not torch.cuda.is_available():
    LIBRARY = declare_operators()
    LIBRARY.impl("nms", greedy, "CPU")

from torchvision import ops  # noqa: E402 (the operators must be there first)
from torchvision.extension import _has_ops  # noqa: E402
from torchvision.models.detection import _utils, anchor_utils  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.retinanet import RetinaNet, _default_anchorgen  # noqa: E402
from torchvision.models.detection.roi_heads import RoIHeads  # noqa: E402
from torchvision.models.detection.rpn import RegionProposalNetwork  # noqa: E402
from torchvision.models.detection.ssd import SSD  # noqa: E402
from torchvision.ops.poolers import LevelMapper  # noqa: E402
from torchvision.ops.roi_align import _roi_align  # noqa: E402

if not _has_ops():
    ops.boxes._assert_has_ops = lambda: None

FLIP = [1, 0, 3, 2]
"""(y0, x0, y1, x1) -> (x0, y0, x1, y1) and back."""


def boxes(name: str, n: int) -> torch.Tensor:
    return torch.from_numpy(box_cases.boxes(name, n)[:, FLIP])


def anchors() -> dict[str, np.ndarray]:
    def on(generator: torch.nn.Module, size: tuple[int, int], maps: list) -> np.ndarray:
        images = ImageList(torch.zeros(1, 3, *size), [size])
        return generator(images, [torch.zeros(1, 1, *m) for m in maps])[0][:, FLIP].numpy()

    maps = list(box_cases.MAPS.values())
    ratios = ((0.5, 1.0, 2.0),) * 5
    rpn = anchor_utils.AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ratios)
    ssd = anchor_utils.DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    return {
        "rpn": on(rpn, box_cases.SIZE, maps[:5]),
        "retinanet": on(_default_anchorgen(), box_cases.SIZE, maps[1:]),
        "ssd": on(ssd, (300, 300), list(box_cases.SSD_MAPS.values())),
    }


def matches(iou: torch.Tensor) -> dict[str, np.ndarray]:
    """Of every candidate the truth's number, -1 if it is negative, -2 if neither."""
    found = {}
    for name, rule in box_cases.RULES.items():
        if rule.get("exclusive"):
            matcher = _utils.SSDMatcher(rule["high"])
        else:
            matcher = _utils.Matcher(rule["high"], rule["low"], rule["best"])
        found[name] = matcher(iou.T).numpy().astype(np.int8)
    return found


def answers() -> dict[str, np.ndarray]:
    """(score, class, box) of what the four detectors make of a head's answers, best first."""
    cut, size, k = box_cases.CUT, [box_cases.SIZE], box_cases.CLASSES
    settings = SimpleNamespace(
        box_coder=_utils.BoxCoder((1.0, 1.0, 1.0, 1.0)),
        score_thresh=box_cases.THRESHOLD,
        nms_thresh=cut["overlap"],
        topk_candidates=cut["candidates"],
        detections_per_img=cut["number"],
        pre_nms_top_n=lambda: cut["candidates"],
        post_nms_top_n=lambda: cut["number"],
        min_size=1e-3,
    )

    def given(name: str, classes: int) -> tuple[torch.Tensor, ...]:
        anchors, logits, deltas = map(torch.from_numpy, box_cases.answers(name, classes))
        return anchors[:, FLIP], logits, deltas

    def one(found: dict[str, torch.Tensor], first: int = 0) -> np.ndarray:
        label = found["labels"][:, None] - first
        return torch.cat([found["scores"][:, None], label, found["boxes"][:, FLIP]], 1).numpy()

    found = {}
    anchors, logits, deltas = given("rpn", 1)
    settings._get_top_n_idx = lambda *a: RegionProposalNetwork._get_top_n_idx(settings, *a)
    settings.score_thresh = 0.0
    every = settings.box_coder.decode_single(deltas, anchors)[None]
    best, scores = RegionProposalNetwork.filter_proposals(
        settings, every, logits[None], size, list(box_cases.LEVELS)
    )
    found["rpn"] = torch.cat([scores[0][:, None], best[0][:, FLIP]], 1).numpy()
    settings.score_thresh = box_cases.THRESHOLD

    anchors, logits, deltas = given("retinanet", k)
    levels = [x.split(box_cases.LEVELS) for x in (logits, deltas[:, :4], anchors)]
    outputs = {"cls_logits": [x[None] for x in levels[0]]}
    outputs["bbox_regression"] = [x[None] for x in levels[1]]
    found["retinanet"] = one(
        RetinaNet.postprocess_detections(settings, outputs, [levels[2]], size)[0]
    )

    anchors, logits, deltas = given("regions", k + 1)
    parts = RoIHeads.postprocess_detections(settings, logits, deltas, [anchors], size)
    names = ("boxes", "scores", "labels")
    found["regions"] = one(dict(zip(names, (x[0] for x in parts), strict=True)), 1)

    anchors, logits, deltas = given("ssd", k + 1)
    outputs = {"cls_logits": logits[None], "bbox_regression": deltas[None, :, :4]}
    found["ssd"] = one(SSD.postprocess_detections(settings, outputs, [anchors], size)[0], 1)
    return found


def computed() -> dict[str, np.ndarray]:
    a, b = boxes("a", 12), boxes("b", 9)
    found = {
        "iou": ops.box_iou(a, b).numpy(),
        "giou": ops.generalized_box_iou(a[:9], b).diagonal().numpy(),
    }
    for name, weights in box_cases.WEIGHTS.items():
        coder = _utils.BoxCoder(weights)
        found[f"deltas/{name}"] = coder.encode_single(a[:9], b).numpy()
        moved = torch.from_numpy(box_cases.draw("deltas", 9, 4).astype(np.float32)) * 3
        found[f"decoded/{name}"] = coder.decode_single(moved, b).numpy()[:, FLIP]
    every = anchors()
    found |= {f"anchors/{name}": sketch(name, values) for name, values in every.items()}
    near = torch.from_numpy(box_cases.candidates(every["rpn"])[:, FLIP])
    iou = ops.box_iou(near, boxes("truth", 15))
    found |= {f"matches/{name}": values for name, values in matches(iou).items()}
    found |= {f"answers/{name}": values for name, values in answers().items()}
    large = boxes("levels", 200) * 20
    found["levels"] = LevelMapper(2, 5)([large]).numpy().astype(np.int8)
    features = torch.from_numpy(box_cases.features()).permute(0, 3, 1, 2)
    regions = torch.cat([torch.zeros(20, 1), boxes("regions", 20)], 1)
    for name, (size, samples, aligned) in box_cases.ALIGN.items():
        pool = _roi_align.__wrapped__  # not compiled
        pooled = pool(features, regions, 1 / box_cases.STRIDE, size, size, samples, aligned)
        found[f"align/{name}"] = sketch(name, pooled.permute(0, 2, 3, 1).numpy())
    return found


if __name__ == "__main__":
    np.savez_compressed(FOLDER / "boxes.npz", **computed())
