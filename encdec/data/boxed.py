"""TensorFlow's data sets with boxes: which features they are, and their examples."""

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from encdec.data import builders
from encdec.data.fit import Example
from encdec.errors import InputError


class Boxed(builders.Records):
    """A source of images with boxes, which TFDS has as parts of the image's height and width.

    Attributes:
      dropped: a line for each box without area that was met so far; no example holds it.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, keys: Mapping[str, str]):
        """`keys` of `box_keys`."""
        super().__init__(builder, split, keys)
        self.dropped: dict[str, None] = {}

    def read(self, i: int, keys: tuple[str, ...]) -> Example:
        """Example i; without "classes" in the set they are all 0, without "crowd" none is."""
        example = super().read(i, keys)
        height, width = example["image"].shape[:2]
        parts = np.asarray(example["boxes"], np.float32).reshape(-1, 4)
        boxes = np.clip(parts, 0, 1) * np.float32([height, width, height, width])
        number = len(boxes)
        classes = np.reshape(example.get("classes", np.zeros(number)), -1).astype(np.int32)
        crowd = np.reshape(example.get("crowd", np.zeros(number)), -1).astype(bool)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        for n in np.flatnonzero(~kept):
            line = f"{self.name(i)}: box {n + 1} has no area in the image: {parts[n].tolist()}"
            self.dropped[line] = None
        return example | {"boxes": boxes[kept], "classes": classes[kept], "crowd": crowd[kept]}


def box_keys(
    builder: tfds.core.DatasetBuilder, image: str, boxes: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Features of an image and its boxes by our names, and the names of the classes.

    Boxes are a sequence, alone or in a sequence with their classes, or one box an image. Given
    names of features are checked.
    """
    features = builder.info.features
    pictures = [key for key in sorted(features) if isinstance(features[key], tfds.features.Image)]
    images = [image] if image else pictures
    every = dict(sorted(_paths(features, tfds.features.BBoxFeature)))
    found = [boxes] if boxes else list(every)
    if len(images) != 1 or len(found) != 1 or images[0] not in pictures or found[0] not in every:
        raise InputError(
            f"One image and one feature of boxes of {builder.info.name} are wanted; its pictures "
            f"are {', '.join(pictures) or 'none'}, its boxes {', '.join(every) or 'none'}; choose "
            "with --data.image and --data.boxes"
        )
    if (form := every[found[0]].bbox_format) != tfds.features.BBoxFeature().bbox_format:
        raise InputError(
            f"Boxes as parts of the image, ymin, xmin, ymax, xmax (REL_YXYX), are wanted; those of "
            f"{builder.info.name} {found[0]} are {form}; convert the set"
        )
    keys, folder = {"image": images[0], "boxes": found[0]}, found[0].rpartition("/")[0]
    many = hasattr(features[found[0].split("/")[0]], "feature")  # boxes an image
    beside = {
        path.rpartition("/")[2]: feature
        for path, feature in sorted(_paths(features, tfds.features.FeatureConnector))
        if path.rpartition("/")[0] == folder
        and hasattr(features[path.split("/")[0]], "feature") == many
    }
    labels = [name for name in beside if isinstance(beside[name], tfds.features.ClassLabel)]
    labels.sort(key=lambda name: name != "label")  # voc labels the pose, too
    crowds = [name for name in ("is_crowd", "is_difficult") if name in beside]
    for key, named in {"classes": labels, "crowd": crowds}.items():
        if named:
            keys[key] = f"{folder}/{named[0]}".removeprefix("/")
    return keys, tuple(beside[labels[0]].names) if labels else ("object",)


def _paths(
    features: tfds.features.FeaturesDict, kind: type
) -> Iterator[tuple[str, tfds.features.FeatureConnector]]:
    """The features of a kind by their path, "objects/bbox", through sequences."""
    for key, feature in features.items():
        inner = getattr(feature, "feature", feature)  # of a sequence
        if isinstance(inner, tfds.features.FeaturesDict):
            yield from ((f"{key}/{path}", leaf) for path, leaf in _paths(inner, kind))
        elif isinstance(inner, kind):
            yield key, inner
