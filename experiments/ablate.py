"""From FCN-8s to U-Net and to FPN, one change at a time; what each is worth, and what it costs.

    python experiments/ablate.py [shapes|camvid] [--seeds 3] [--parts walk upsample merge]
    python experiments/ablate.py --forms "FPN, no top-down" --steps 1000

One encoder, one data set, one budget. Each form is another one with one of the walk's five places
changed (what is carried up, the lateral, the upsampling, the merge, the refinement) or with another
place to predict; its worth is the difference of the two scores, paired by seed, with the 95 %
interval of Student's t. Each run is a folder under --workdir; interrupted, the same command goes
on. Given on several machines that share the folder, each takes runs that no other has.
"""

import dataclasses
from pathlib import Path
from statistics import mean, median
from typing import Literal

from flax import linen as nn

from encdec import cli, flags
from encdec.data.augment import Augment
from encdec.data.datasets import CamVid, Dataset, Shapes
from encdec.decoders.fcn import FCN, Deconvolution
from encdec.decoders.fpn import FPN, Lateral, Nearest, Smooth
from encdec.decoders.hybrid import Bilinear, PixelShuffle
from encdec.decoders.topdown import Copy, TopDown
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.grid import interval, trained
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.summary import flops, parameters
from encdec.table import Row, spread, table
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer
from encdec.visualize_cost import write_cost

Part = Literal["walk", "upsample", "merge"]

FORMS: dict[str, tuple[Part, str, str]] = {
    "FCN-8s": ("walk", "", "scores of strides 8, 16, 32, added; learned bilinear"),
    "FCN-4s": ("walk", "FCN-8s", "a skip of stride 4"),
    "FCN-2s": ("walk", "FCN-4s", "a skip of stride 2"),
    "wide to 2": ("walk", "FCN-2s", "features are carried up, not scores"),
    "concatenated": ("walk", "wide to 2", "concatenated, not added"),
    "skips as they are": ("walk", "concatenated", "no 1x1 lateral"),
    "convolved": ("walk", "skips as they are", "two 3x3 convolutions after each merge"),
    "U-Net, one width": ("walk", "convolved", "2x2 up-convolution, not learned bilinear"),
    "U-Net": ("walk", "U-Net, one width", "wider the coarser"),
    "wide to 4": ("walk", "FCN-4s", "features are carried up, not scores"),
    "nearest": ("walk", "wide to 4", "nearest, not learned bilinear"),
    "smoothed": ("walk", "nearest", "a 3x3 convolution before it predicts"),
    "FPN": ("walk", "smoothed", "predicts on every level, summed"),
    "FPN, bilinear": ("upsample", "FPN", "bilinear, not nearest"),
    "FPN, learned bilinear": ("upsample", "FPN", "learned bilinear, not nearest"),
    "FPN, transposed": ("upsample", "FPN", "2x2 transposed convolution, not nearest"),
    "FPN, pixel shuffle": ("upsample", "FPN", "3x3 pixel shuffle, not nearest"),
    "U-Net, nearest": ("upsample", "U-Net", "nearest, not up-convolution"),
    "U-Net, bilinear": ("upsample", "U-Net", "bilinear, not up-convolution"),
    "U-Net, learned bilinear": ("upsample", "U-Net", "learned bilinear, not up-convolution"),
    "U-Net, Gaussian start": ("upsample", "U-Net", "the paper's start of the up-convolution"),
    "U-Net, pixel shuffle": ("upsample", "U-Net", "3x3 pixel shuffle, not up-convolution"),
    "FPN, concatenated": ("merge", "FPN", "concatenated, not added"),
    "FPN, no top-down": ("merge", "FPN", "nothing comes down"),
    "smoothed, no top-down": ("merge", "smoothed", "nothing comes down; the finest map alone"),
    "FPN, no lateral": ("merge", "FPN", "no skips"),
    "U-Net, added": ("merge", "U-Net", "1x1 lateral, added, not concatenated"),
    "U-Net, no skips": ("merge", "U-Net", "no skips"),
    "U-Net, every level": ("merge", "U-Net", "predicts on every level, summed"),
}
"""Name -> the table that it stands in, the form that it changes, and how."""


@dataclasses.dataclass(frozen=True)
class Ablate:
    """Forms between FCN-8s, U-Net and FPN, for the data named before the flags: shapes, camvid.

    Attributes:
      small: classes of thin and small things; the table has the IoU of each, and the mean of these
        ("IoU of small").
      width: channels that are carried up; of U-Net those at the finest levels are half of them,
        those at the coarsest twice.
      parts: "walk", "upsample", "merge": tables to make.
      forms: some of the parts' forms, by name; those that they change run, too.
      seeds: runs of each form, seeds 0, 1, …
      record: file of what was found; by default in workdir. A run that stands there, with the
        same flags, is not run again.
    """

    data: Dataset
    augment: Augment
    workdir: Path
    small: tuple[str, ...]
    encoder: nn.Module = ResNet(width=32)
    width: int = 64
    optimizer: Optimizer = Optimizer()
    losses: tuple[tuple[str, float], ...] = (("cross_entropy", 1.0),)
    parts: tuple[Part, ...] = ("walk", "upsample", "merge")
    forms: tuple[str, ...] = tuple(FORMS)
    steps: int = 250
    batch: int = 8
    seeds: int = 3
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or (wrong := set(self.forms) - set(FORMS)):
            raise InputError(
                f"--seeds wants 1 or more and --forms some of {', '.join(map(repr, FORMS))}; got "
                f"{self.seeds} and {self.forms if self.seeds < 1 else sorted(wrong)}"
            )
        if not any(map(self.of, self.parts)):
            raise InputError(f"wanted a form of the parts {self.parts}; got {self.forms}")

    def of(self, part: Part) -> list[str]:
        """The part's forms that are asked for."""
        return [form for form, (own, _, _) in FORMS.items() if own == part and form in self.forms]


DEFAULTS = {
    "shapes": Ablate(
        data=Shapes(split="test"),
        augment=Augment(size=(128, 128)),
        workdir=Path("runs/ablate_shapes"),
        small=("wire", "dot"),
        optimizer=Optimizer(rate=2e-3),
    ),
    "camvid": Ablate(
        data=CamVid(),
        augment=Augment(size=(128, 192), scale=(0.6, 1.5), colour=0.2),
        workdir=Path("runs/ablate_camvid"),
        small=("pole", "sign"),
        optimizer=Optimizer(rate=2e-3, decay=1e-2),
        losses=(("cross_entropy", 1.0), ("dice", 1.0)),
        steps=400,
    ),
}


def model(form: str, encoder: nn.Module, classes: int, width: int) -> EncoderDecoder:
    """The network of a form; the whole script in one page."""
    w, fine, finer = width, (4, 8, 16, 32), (2, 4, 8, 16, 32)
    wide = TopDown(fine, w, Lateral(), Deconvolution(), "add", Copy(), Copy(), "finest")
    concatenated = wide.clone(strides=finer, merge="concatenate")
    convolved = concatenated.clone(lateral=Copy(), refine=DoubleConv(norm="batch"))
    unet = UNet(finer, (2 * w, w, w // 2, w // 2), refine=DoubleConv(norm="batch"))
    unet = unet.clone(upsample=UpConv(start="nearest"))
    fpn = FPN(fine, w)
    smoothed = wide.clone(upsample=Nearest(), output=Smooth())
    decoder = {
        "FCN-8s": FCN((8, 16, 32), classes),
        "FCN-4s": FCN(fine, classes),
        "FCN-2s": FCN(finer, classes),
        "wide to 2": wide.clone(strides=finer),
        "concatenated": concatenated,
        "skips as they are": concatenated.clone(lateral=Copy()),
        "convolved": convolved,
        "U-Net, one width": convolved.clone(upsample=unet.upsample),
        "U-Net": unet,
        "wide to 4": wide,
        "nearest": wide.clone(upsample=Nearest()),
        "smoothed": smoothed,
        "FPN": fpn,
        "FPN, bilinear": fpn.clone(upsample=Bilinear()),
        "FPN, learned bilinear": fpn.clone(upsample=Deconvolution()),
        "FPN, transposed": fpn.clone(upsample=UpConv()),
        "FPN, pixel shuffle": fpn.clone(upsample=PixelShuffle()),
        "U-Net, nearest": unet.clone(upsample=Nearest()),
        "U-Net, bilinear": unet.clone(upsample=Bilinear()),
        "U-Net, learned bilinear": unet.clone(upsample=Deconvolution()),
        "U-Net, Gaussian start": unet.clone(upsample=UpConv()),
        "U-Net, pixel shuffle": unet.clone(upsample=PixelShuffle()),
        "FPN, concatenated": fpn.clone(merge="concatenate"),
        "FPN, no top-down": fpn.clone(merge="skip"),
        "smoothed, no top-down": smoothed.clone(merge="skip"),
        "FPN, no lateral": fpn.clone(merge="top"),
        "U-Net, added": unet.clone(lateral=Lateral(), merge="add"),
        "U-Net, no skips": unet.clone(merge="top"),
        "U-Net, every level": unet.clone(levels="every"),
    }[form]
    if decoder.levels == "every":
        head = Merge(classes, w)
    else:
        head = Pixel(classes, scores=form.startswith("FCN"))
    return EncoderDecoder(encoder, decoder, head)


def experiment(job: Ablate, form: str, seed: int) -> Experiment:
    """One of the job's runs."""
    classes = len(job.data.classes)
    return Experiment(
        model=model(form, job.encoder, classes, job.width),
        data=job.data,
        augment=job.augment,
        task=Segment(classes, losses=job.losses),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


def scores(job: Ablate) -> dict[str, list[str]]:
    """Column of the tables -> the scores whose mean it shows."""
    small = [key for keys in by_class(job).values() for key in keys]
    return {"mean IoU": ["mean_iou"], "IoU of small": small, "boundary F": ["boundary_f"]}


def by_class(job: Ablate) -> dict[str, list[str]]:
    """As `scores`, a column for each of the small classes."""
    return {f"IoU of {name}": [f"iou/{job.data.classes.index(name)}"] for name in job.small}


def rows(job: Ablate, part: Part, record: Record) -> list[Row]:
    """A table: each form of the part, after the forms of other parts that it changes."""
    forms = job.of(part)
    bases = [FORMS[form][1] for form in forms]
    found = []
    for form in dict.fromkeys([base for base in bases if base and base not in forms] + forms):
        one, base = experiment(job, form, 0), FORMS[form][1] if form in forms else ""
        sizes, runs = parameters(one.model), results(job, form, record)
        row: Row = {
            "form": form,
            "changes": base or None,
            "by": FORMS[form][2],
            "decoder + head": sizes["decoder"] + sizes["head"],
            "GFLOPs": flops(one.model, job.augment.size) / 1e9,
            "images/s": median(run["images_per_s"] for run in runs),
            "memory MiB": max(run["memory_mib"] for run in runs),
        }
        for name, keys in (scores(job) | by_class(job)).items():
            row[name] = spread([mean(run["scores"][key] for key in keys) for run in runs])
        for name, keys in scores(job).items():
            pairs = zip(runs, results(job, base, record), strict=True) if base else ()
            worth = [mean(a["scores"][k] - b["scores"][k] for k in keys) for a, b in pairs]
            row[f"worth: {name}"] = interval(worth) if base else None
        found.append(row)
    return found


def results(job: Ablate, form: str, record: Record) -> list[dict]:
    """What is recorded of a form, by seed."""
    return [record.run(form, experiment(job, form, seed)) for seed in range(job.seeds)]


def train(job: Ablate) -> list[Row]:
    """Runs what has not been run yet; writes the record, the figure and the tables."""
    title = f"From FCN-8s to U-Net and to FPN, {type(job.data).__name__}, {job.steps} steps"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {form for part in job.parts for form in job.of(part)}
    forms |= {FORMS[form][1] for form in forms} - {""}
    wanted = {
        form: [experiment(job, form, seed) for seed in range(job.seeds)]
        for form in FORMS
        if form in forms
    }
    trained(wanted, job.workdir, record)
    tables = [(part, rows(job, part, record)) for part in job.parts if job.of(part)]
    record.write(tables)
    for part, made in tables:
        print(f"\n{part}\n\n{table(made)}", flush=True)
    job.workdir.mkdir(parents=True, exist_ok=True)  # it is not there where all stands in the record
    picture = job.workdir / "cost.svg"
    write_cost(picture, tables, "GFLOPs", tuple(scores(job)))
    print(picture)
    return [row for _, made in tables for row in made]


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
