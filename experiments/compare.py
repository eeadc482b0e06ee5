"""The main job: one encoder, five decoders, the same data, budget and seeds; one table.

    python experiments/compare.py                        # shapes, drawn on first use
    python experiments/compare.py camvid --data.root DIR
    python experiments/compare.py folder --data.root DIR --seeds 3
    python experiments/compare.py tfds --data.name oxford_iiit_pet --data.offset 1

Each run is a folder under --workdir; interrupted, the same command goes on. The table, report.html
and the pictures are written beside them.
"""

import dataclasses
from pathlib import Path

from encdec import cli, flags
from encdec.compare import read, write
from encdec.data.augment import Augment
from encdec.data.datasets import TFDS, CamVid, Dataset, Folder, Shapes
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet, resnet18
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.geometry import geometry
from encdec.grid import cell
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.summary import flops, parameters
from encdec.table import Row
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Compare:
    """FCN-32s, FCN-16s, FCN-8s, U-Net and FPN on one encoder, for the data named before the flags:
    shapes (the default), camvid, folder or tfds.

    Attributes:
      steps: of each model and seed.
      seeds: runs of each model, seeds 0, 1, …; the table then has means and spreads.
      workdir: folder of all runs and of the report.
      record: file of what was found, for the page of results; by default in workdir.
    """

    data: Dataset
    augment: Augment
    workdir: Path
    encoder: ResNet = resnet18()
    optimizer: Optimizer = Optimizer()
    losses: tuple[tuple[str, float], ...] = (("cross_entropy", 1.0),)
    steps: int = 1000
    batch: int = 8
    seeds: int = 1
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1; got {self.seeds}")


SHAPES = Compare(
    data=Shapes(split="test"),
    augment=Augment(size=(128, 128)),
    workdir=Path("runs/compare_shapes"),
    encoder=ResNet(width=32),
    optimizer=Optimizer(rate=2e-3),
    steps=250,
)
CAMVID = Compare(
    data=CamVid(),
    augment=Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2),
    workdir=Path("runs/compare_camvid"),
    optimizer=Optimizer(decay=1e-2),
    losses=(("cross_entropy", 1.0), ("dice", 1.0)),
)
OWN = Augment(size=(256, 256), scale=(0.75, 1.5), colour=0.2)
DEFAULTS = {
    "shapes": SHAPES,
    "camvid": CAMVID,
    "folder": Compare(data=Folder(), augment=OWN, workdir=Path("runs/compare_folder")),
    "tfds": Compare(data=TFDS(), augment=OWN, workdir=Path("runs/compare_tfds")),
}
DESIGN = {
    "FCN-32s": ("class scores", "–", "bilinear x32", "last map, stride 32"),
    "FCN-16s": ("class scores", "added", "learned bilinear x2; x16", "last map, stride 16"),
    "FCN-8s": ("class scores", "added", "learned bilinear x2; x8", "last map, stride 8"),
    "U-Net": (
        "wide features",
        "concatenated, 3x3 twice",
        "2x2 up-convolution",
        "last map, stride 2",
    ),
    "FPN": ("a pyramid", "1x1 lateral, added", "nearest x2", "every level, summed at 4"),
}


def models(encoder: ResNet, classes: int) -> dict[str, EncoderDecoder]:
    """The five, by name; widths follow the encoder's."""
    w = encoder.width
    unet = UNet(
        strides=(2, 4, 8, 16, 32),
        channels=(4 * w, 2 * w, w, w),
        upsample=UpConv(start="nearest"),
        refine=DoubleConv(norm="batch"),
    )
    scores = Pixel(classes, scores=True)
    return {
        "FCN-32s": EncoderDecoder(encoder, FCN(strides=(32,), channels=classes), scores),
        "FCN-16s": EncoderDecoder(encoder, FCN(strides=(16, 32), channels=classes), scores),
        "FCN-8s": EncoderDecoder(encoder, FCN(strides=(8, 16, 32), channels=classes), scores),
        "U-Net": EncoderDecoder(encoder, unet, Pixel(classes)),
        "FPN": EncoderDecoder(encoder, FPN(channels=2 * w), Merge(classes, channels=2 * w)),
    }


def compare(job: Compare) -> list[Row]:
    """Trains what is not trained yet, writes the report, returns the table's rows."""
    title, groups, design = f"FCN, U-Net, FPN on {type(job.data).__name__}", {}, {}
    record = Record(job.record or job.workdir / "record.json", title)
    for name, model in models(job.encoder, len(job.data.classes)).items():
        folders = [job.workdir / name / f"seed{seed}" for seed in range(job.seeds)]
        for seed, folder in enumerate(folders):
            one = experiment(job, model, seed)
            found = cell(one, folder)
            record.add(name, one, folder, found.scores, found.seconds)
        groups[name] = [read(folder) for folder in folders]
        sizes, size = parameters(model), job.augment.size
        carried, merged, upsampled, predicts = DESIGN[name]
        design[name] = {
            "carried up": carried,
            "merged": merged,
            "upsampled": upsampled,
            "predicts at": predicts,
            "decoder + head": sizes["decoder"] + sizes["head"],
            "GFLOPs": flops(model, size) / 1e9,
            "receptive field": geometry(model, size).receptive_field,
        }
    rows = write(
        groups,
        job.workdir,
        title=title,
        intro="One encoder, the same data and budget; only the decoder differs.",
        design=design,
        more={
            "data": f"{job.data}",
            "encoder": f"ResNet {job.encoder.blocks}, {job.encoder.width} channels, random weights",
            "budget": f"{job.steps} steps of {job.batch} images, {job.seeds} seed(s)",
            "scored on": f"split {job.data.split}, the newest checkpoint",
        },
    )
    record.write([("five networks", rows)])
    return rows


def experiment(job: Compare, model: EncoderDecoder, seed: int) -> Experiment:
    """One of the job's runs."""
    return Experiment(
        model=model,
        data=job.data,
        augment=job.augment,
        task=Segment(model.head.classes, losses=job.losses),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


if __name__ == "__main__":
    cli.guarded(lambda: compare(flags.chosen(DEFAULTS)))
