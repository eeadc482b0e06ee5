"""COCO's stuff, pixel by pixel, in the files that Panoptic FPN's semantic branch learns from."""

import dataclasses
from pathlib import Path

from encdec.data.datasets import Dataset, known
from encdec.data.folders import REMEDY, Pairs, came, match
from encdec.errors import InputError

STUFF = (
    "things", "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff",
    "floor-wood", "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow",
    "platform", "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow",
    "stairs", "tent", "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "window-blind", "window-other", "tree-merged", "fence-merged", "ceiling-merged",
    "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged",
    "building-other-merged", "rock-merged", "wall-other-merged", "rug-merged",
)  # fmt: skip
"""The 53 kinds of stuff of COCO's panoptic task, in the order of their ids; all things are 0."""


@dataclasses.dataclass(frozen=True)
class COCOStuff(Dataset):
    """Stuff of COCO 2017; objects of whatever class are one class, "things".

    Attributes:
      root: folder with train2017/ID.jpg, panoptic_stuff_train2017/ID.png, val2017/, …; by default
        $ENCDEC_DATA/coco. The masks are those that detectron2's prepare_panoptic_fpn.py writes: 0
        things, 1 to 53 stuff, 255 ignored.
      canvas: see `Dataset`.
    """

    root: Path | None = None
    canvas: tuple[int, int] = (640, 640)

    @property
    def classes(self) -> tuple[str, ...]:
        return STUFF

    def source(self, split: str) -> Pairs:
        root = self.root or known("coco")
        images, masks = root / f"{split}2017", root / f"panoptic_stuff_{split}2017"
        if not images.is_dir() or not masks.is_dir():
            raise InputError(
                f"COCO's stuff wants {images.name}/ and {masks.name}/ in its folder; "
                f"{came(root)}; {REMEDY}"
            )
        return match(images, masks)
