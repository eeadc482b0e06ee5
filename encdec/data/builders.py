"""TFDS builders for what TFDS lacks: array_record files, read at random, without TensorFlow."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from encdec.arrays import IGNORE
from encdec.data import folders, images, synthetic
from encdec.data.fit import Example
from encdec.errors import InputError
from encdec.progress import Bar


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """Settings of one set; the name, hence the folder, follows from them."""

    name: str = ""
    size: int = 128
    counts: tuple[int, int, int] = (1200, 200, 200)  # train, val, test
    seed: int = 0
    sides: tuple[int, int] | None = None  # of objects to detect; None: scenes to segment

    def __post_init__(self):
        train, val, test = self.counts
        self.name = f"size{self.size}-train{train}-val{val}-test{test}-seed{self.seed}"
        if self.sides:
            self.name += f"-sides{self.sides[0]}to{self.sides[1]}"

    def draw(self, index: int) -> Example:
        """Scene `index`, whatever its split."""
        if self.sides:
            return synthetic.draw_objects(self.seed, index, self.size, self.sides)
        return synthetic.draw(self.seed, index, self.size)


class ShapesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Scenes of `synthetic`. Example i of a split is the same whatever the counts."""

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")  # raise it when the drawing changes: caches follow

    def _info(self) -> tfds.core.DatasetInfo:
        size, sides = self.builder_config.size, self.builder_config.sides
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
            "instances": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "classes": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "crowd": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
        }
        del features["label" if sides else "crowd"]
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager) -> dict:
        names = ("train", "val", "test")
        counts = self.builder_config.counts
        return {
            name: self._generate_examples(name, n) for name, n in zip(names, counts, strict=True)
        }

    def _generate_examples(self, split: str, count: int) -> Iterator:
        first = {"train": 0, "val": 1_000_000, "test": 2_000_000}[split]
        for i in Bar(range(count), f"drawing shapes, {split}", leave=False):
            scene = self.builder_config.draw(first + i)
            pictures = {"image", "label", "instances"} & set(scene)
            yield i, scene | {key: _png(scene[key]) for key in pictures}


def shapes(
    root: Path,
    *,
    size: int,
    counts: tuple[int, int, int],
    seed: int,
    sides: tuple[int, int] | None = None,
) -> ShapesBuilder:
    """The set of drawn scenes under `root`, built on first use (seconds, with a progress bar).

    A build goes to a folder of its own and is renamed when whole: one that was killed leaves
    nothing that is taken for a set, and of several at once the first to finish is kept.
    """
    config = ShapesConfig(size=size, counts=counts, seed=seed, sides=sides)
    with _quiet():
        with whole(root):
            builder = ShapesBuilder(data_dir=root, config=config)
        if not builder.data_path.exists():
            try:
                builder.download_and_prepare(file_format="array_record")
            except OSError as error:
                if not builder.data_path.exists():  # else another process was faster
                    raise InputError(
                        f"shapes want a folder to be drawn into; {root} cannot be written "
                        f"({error}); name another with --data.root DIR or $ENCDEC_CACHE"
                    ) from error
                builder = ShapesBuilder(data_dir=root, config=config)
        return builder


def named(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """A TFDS set by name, prepared as array_record on first use."""
    if not name:
        raise InputError("A TFDS name is wanted and none came; give one with --data.name")
    if ":" in name.split("/")[0] and not name.split("/")[0].partition(":")[2][:1].isdigit():
        raise InputError(
            f"A set of TFDS's own is wanted; {name!r} came, which fetches a community's code and "
            "runs it; prepare the set yourself and name a folder of images"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.data_path.exists():
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # TFDS raises what its many builders raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"TFDS has no set {name!r} that can be prepared here ({type(error).__name__}: "
            f"{reason}); check --data.name and --data.data-dir"
        ) from error
    return builder


def keys(builder: tfds.core.DatasetBuilder, image: str, mask: str) -> tuple[str, str]:
    """Names of the image and the mask among the features; given ones are checked."""
    pictures = {
        key: feature.shape[-1]
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    images = [image] if image else [key for key, channels in pictures.items() if channels != 1]
    masks = [mask] if mask else [key for key in pictures if key not in images]
    if len(images) != 1 or len(masks) != 1 or not {images[0], masks[0]} <= set(pictures):
        raise InputError(
            f"One image and one mask of {builder.info.name} are wanted; its pictures are "
            f"{', '.join(sorted(pictures)) or 'none'}; choose with --data.image and --data.mask"
        )
    return images[0], masks[0]


SHAPES = {name: name for name in ("image", "label", "instances", "boxes", "classes")}
OBJECTS = {name: name for name in ("image", "instances", "boxes", "classes", "crowd")}


class Records:
    """A source over a prepared builder; pictures are decoded here, by Pillow.

    TFDS would decode a palette mask to colours, not ids, as soon as OpenCV is installed.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        keys: Mapping[str, str] = SHAPES,
        offset: int = 0,
    ):
        """`keys` are the features to use by their name in our examples; `offset` as in `TFDS`."""
        if split not in builder.info.splits:
            raise InputError(
                f"{builder.info.name} has the splits {', '.join(sorted(builder.info.splits))}; "
                f"{split!r} came; change --data.split"
            )
        self.title, self.keys, self.offset = f"{builder.info.full_name} {split}", keys, offset
        skip = tfds.decode.SkipDecoding()
        features = builder.info.features
        raw = {k: skip for k in features if isinstance(features[k], tfds.features.Image)}
        with whole(Path(builder.data_path)):
            self.records: Sequence = builder.as_data_source(split, decoders=raw)
            len(self.records)  # opens the files

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Example:
        if i >= len(self):
            raise IndexError(f"{self.title} has {len(self)} records; got {i}")  # ends a loop
        return self.read(i, tuple(self.keys))

    def read(self, i: int, keys: tuple[str, ...]) -> Example:
        """Example i; of label and instances, which must be decoded, those that `keys` have."""
        name = self.name(i)
        try:
            record = self.records[i]
        except Exception as error:  # array_record's hashes, protobuf, numpy
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"{name}: cannot be read ({reason}); prepare the set again") from error
        unasked = {"label", "instances"} - set(keys)
        example = {
            ours: functools.reduce(lambda part, key: part[key], theirs.split("/"), record)
            for ours, theirs in self.keys.items()
            if ours not in unasked
        }
        example["image"] = images.decode_image(io.BytesIO(example["image"]), name)
        for key in {"label", "instances"} & set(example):
            example[key] = images.decode_ids(io.BytesIO(example[key]), name)
        if "label" in example:
            ids = example["label"]
            ids = np.where((ids == IGNORE) | (ids < self.offset), IGNORE, ids - self.offset)
            example["label"] = folders.as_label(ids, IGNORE, name)
        return example

    def name(self, i: int) -> str:
        """Where example i comes from, for messages."""
        return f"{self.title} record {i}"


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Raises InputError where a prepared set is damaged, whatever TFDS stumbles over."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{folder}: a set as TFDS prepares it is wanted; it cannot be read ({reason}); delete "
            "it, and it is prepared again"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's own bars, prints and warnings off the terminal; our bar goes to stderr."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(level)


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    level = 0 if pixels.ndim == 3 else 1  # noise does not compress: quicker to write and to read
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG", compress_level=level)
    return data.getvalue()
