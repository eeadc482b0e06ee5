"""The main job: one encoder, five decoders, the same data, budget and seeds; one table.

    python experiments/compare.py                        # shapes, drawn on first use
    python experiments/compare.py camvid --data.root DIR
    python experiments/compare.py folder --data.root DIR --seeds 3
    python experiments/compare.py tfds --data.name oxford_iiit_pet --data.offset 1

Each run is a folder under --workdir; interrupted, the same command goes on. The table, report.html
and the pictures are written beside them.
"""

import dataclasses
import json
import statistics
import sys
from pathlib import Path

from encdec import cli, flags, page
from encdec.data.augment import Augment
from encdec.data.datasets import TFDS, CamVid, Dataset, Folder, Shapes
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet, resnet18
from encdec.errors import InputError
from encdec.evaluate import samples
from encdec.experiment import Experiment
from encdec.geometry import geometry
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.report import history
from encdec.summary import flops, parameters
from encdec.table import table
from encdec.tasks.segment import Segment
from encdec.train.folder import environment
from encdec.train.loop import run, variables_of
from encdec.train.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Compare:
    """FCN-32s, FCN-16s, FCN-8s, U-Net and FPN on one encoder, for the data named before the flags:
    shapes (the default), camvid, folder or tfds.

    Attributes:
      steps: of each model and seed.
      seeds: runs of each model, seeds 0, 1, …; the table then has means and spreads.
      workdir: folder of all runs and of the report.
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


def compare(job: Compare) -> list[dict[str, object]]:
    """Trains what is not trained yet, writes the report, returns the table's rows."""
    names = job.data.classes
    rows, histories, predictions = [], {}, {}
    for name, model in models(job.encoder, len(names)).items():
        folders = [job.workdir / name / f"seed{seed}" for seed in range(job.seeds)]
        runs = [experiment(job, model, seed) for seed in range(job.seeds)]
        results = [run(one, folder) for one, folder in zip(runs, folders, strict=True)]
        # Speed, memory, curves and pictures are those of the first seed.
        lines = histories[name] = history(folders[0])
        predictions[name] = samples(runs[0], variables_of(runs[0], folders[0]), 12)
        speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
        memory = max(line.get("memory_mib", 0.0) for line in lines)
        sizes, size = parameters(model), job.augment.size
        carried, merged, upsampled, predicts = DESIGN[name]
        rows.append(
            {
                "model": name,
                "carried up": carried,
                "merged": merged,
                "upsampled": upsampled,
                "predicts at": predicts,
                "decoder + head": sizes["decoder"] + sizes["head"],
                "GFLOPs": flops(model, size) / 1e9,
                "receptive field": geometry(model, size).receptive_field,
                "images/s": statistics.median(speeds) if speeds else None,
                "memory MiB": memory,
                "pixel accuracy": spread([r["pixel_accuracy"] for r in results]),
                "mean IoU": spread([r["mean_iou"] for r in results]),
                "boundary F": spread([r["boundary_f"] for r in results]),
            }
        )
    report(job, rows, histories, predictions)
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


def spread(values: list[float]) -> float | tuple[float, float]:
    """(mean, standard deviation) of several runs; the value of one."""
    if len(values) == 1:
        return values[0]
    return statistics.mean(values), statistics.stdev(values)


def report(job: Compare, rows: list[dict], histories: dict, predictions: dict) -> None:
    """report.html, the pictures and table.json in the work folder; the table on the console."""
    shown = [
        {
            "image": image,
            "label": label,
            "predictions": {name: made[i][2] for name, made in predictions.items()},
        }
        for i, (image, label, _) in enumerate(next(iter(predictions.values())))
    ]
    machine = environment()
    page.write_comparison(
        job.workdir,
        title=f"Three decoders on {type(job.data).__name__}",
        command=machine["command"],
        rows=rows,
        histories=histories,
        samples=shown,
        classes=job.data.classes,
        facts={
            "data": f"{job.data}",
            "encoder": f"ResNet {job.encoder.blocks}, {job.encoder.width} channels, random weights",
            "budget": f"{job.steps} steps of {job.batch} images, {job.seeds} seed(s)",
            "scored on": f"split {job.data.split}, the newest checkpoint",
            **machine,
        },
    )
    (job.workdir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{table(rows)}\n{job.workdir / 'report.html'}")


def main() -> None:
    args = sys.argv[1:]
    name = "shapes" if not args or args[0].startswith("-") else args.pop(0)
    if name not in DEFAULTS:
        raise InputError(f"wanted one of {', '.join(DEFAULTS)}; got {name}")
    compare(flags.parse(Compare, args, default=DEFAULTS[name]))


if __name__ == "__main__":
    cli.guarded(main)
