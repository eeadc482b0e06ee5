"""U-Net (Ronneberger et al. 2015) without each of the things that its paper puts it down to.

    python experiments/unet_ablations.py [shapes|isbi_em|dsb2018] [--seeds 3]

    U-Net            unpadded; skips; elastic deformation; the weight map of equation 2
    no skips         what comes up is not merged with anything (§2: skips are for localisation)
    no elastic       no elastic deformation; all else of the augmentation stays (§3.1)
    no weight map    every pixel weighs the same (§3)
    padded           convolutions keep the size; a tile is as large as what the others give of one

The paper has no table of these, but says what each is for: orderings are in words. It says nothing
of the padded net's scores; its reason for valid convolutions is that tiles join without a seam.
Drawn shapes are as few as its training images, 30. Adam in place of SGD, a smaller width, dropout
as in the paper. Each run is a folder under --workdir; interrupted, the same command goes on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from encdec import cli, flags
from encdec.data.augment import Augment
from encdec.data.biomedical import DSB2018, ISBI
from encdec.data.border import Border
from encdec.data.datasets import Dataset, Shapes
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.geometry import geometry
from encdec.grid import Ordering, finish, judged, measured, minutes, recorded
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.records import Record
from encdec.sections import named
from encdec.tasks.segment import Also, Segment
from encdec.train.optimizer import Optimizer

Form = Literal["U-Net", "no skips", "no elastic", "no weight map", "padded"]
FORMS: tuple[Form, ...] = ("U-Net", "no skips", "no elastic", "no weight map", "padded")
CLAIMED = ("no skips", "no elastic", "no weight map")
"""Forms that the paper says, in words, are worse."""


@dataclasses.dataclass(frozen=True)
class Ablations:
    """U-Net and what is left of it.

    Attributes:
      data: with instances; `border` is the weight map.
      augment: of the unpadded forms: `size` is what they see.
      channels: of each level, fine to coarse.
      scores: of the table; by the first the orderings are judged.
      also: what is scored beside the classes of pixels.
      seeds: runs of each form.
      record: file of what was found; by default in workdir. A run that stands there, with the same
        flags, is not run again.
    """

    data: Dataset
    augment: Augment
    scores: tuple[str, ...] = ("mean_iou", "pixel_accuracy", "boundary_f")
    also: tuple[Also, ...] = ()
    channels: tuple[int, ...] = (16, 32, 64, 128)
    forms: tuple[Form, ...] = FORMS
    seeds: int = 1
    steps: int = 400
    batch: int = 4
    optimizer: Optimizer = Optimizer()
    record: Path | None = None
    workdir: Path = Path("runs/unet_ablations")

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1; got {self.seeds}")
        if not self.augment.elastic or self.data.border is None:
            raise InputError(
                "a U-Net with elastic deformation and a weight map is wanted, to leave them out; "
                f"got --augment.elastic {self.augment.elastic}, data.border:"
                f"{'border' if self.data.border else 'none'}"
            )


DEFAULTS = {
    "shapes": Ablations(
        Shapes(split="test", train=30, border=Border()),
        Augment((220, 220), colour=0.1, elastic=5.0, border="mirror"),
    ),
    "isbi_em": Ablations(
        ISBI(border=Border()),
        Augment((444, 444), rotate=180.0, colour=0.2, elastic=10.0, border="mirror"),
        scores=("v_rand", "v_info", "mean_iou", "pixel_accuracy"),
        also=("membranes",),
        channels=(16, 32, 64, 128, 256),
        batch=1,
        workdir=Path("runs/unet_ablations_isbi_em"),
    ),
    "dsb2018": Ablations(
        DSB2018(border=Border()),
        Augment(
            (348, 348),
            scale=(0.75, 1.33),
            rotate=180.0,
            colour=0.2,
            elastic=5.0,
            border="mirror",
        ),
        scores=("object_f1", "object_ap", "mean_iou", "pixel_accuracy"),
        also=("objects",),
        workdir=Path("runs/unet_ablations_dsb2018"),
    ),
}


def model(job: Ablations, form: Form) -> EncoderDecoder:
    """The form's network."""
    padded = form == "padded"
    decoder = UNet(
        strides=tuple(2**level for level in range(len(job.channels))),
        channels=job.channels[-2::-1],
        merge="top" if form == "no skips" else "concatenate",
        refine=DoubleConv(padded=padded),
    )
    encoder = Plain(job.channels, padded=padded, dropout=0.5)
    return EncoderDecoder(encoder, decoder, Pixel(len(job.data.classes)))


def sizes(job: Ablations, form: Form) -> tuple[tuple[int, int], tuple[int, int]]:
    """What the form sees of an image in training, and what it gives of that."""
    given = geometry(model(job, "U-Net"), job.augment.size).output
    return (given, given) if form == "padded" else (job.augment.size, given)


def experiment(job: Ablations, form: Form, seed: int) -> Experiment:
    """One of the job's runs."""
    data, augment = job.data, dataclasses.replace(job.augment, size=sizes(job, form)[0])
    if form == "no weight map":
        data = dataclasses.replace(data, border=None)
    if form == "no elastic":
        augment = dataclasses.replace(augment, elastic=0.0)
    return Experiment(
        model=model(job, form),
        data=data,
        augment=augment,
        task=Segment(len(data.classes), also=job.also),
        optimizer=job.optimizer,
        steps=job.steps,
        batch=job.batch,
        seed=seed,
    )


def train(job: Ablations) -> list[dict[str, object]]:
    """Runs what has not been run yet; returns a row for each form."""
    seeds, title = range(job.seeds), f"U-Net's own pieces, {type(job.data).__name__}"
    record = Record(job.record or job.workdir / "record.json", title)
    forms = {form: [experiment(job, form, seed) for seed in seeds] for form in job.forms}
    grid, rows = recorded(forms, job.workdir, record), []
    for form, runs in grid.items():
        (sees, _), (gives, _) = sizes(job, form)
        row = {"form": form, "sees": f"{sees} px", "gives": f"{gives} px"}
        rows.append(row | measured(runs, job.scores, name=named) | {"minutes": minutes(runs)})
    orderings = [Ordering("U-Net", form, job.scores[0], {}) for form in CLAIMED]
    findings = judged(grid, orderings)
    return finish(record, "scores", rows, findings)


if __name__ == "__main__":
    cli.guarded(lambda: train(flags.chosen(DEFAULTS)))
