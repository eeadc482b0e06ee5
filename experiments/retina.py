"""The retina U-Net that others trained on DRIVE, on the vessels of CHASE_DB1: nothing is trained.

python experiments/retina.py FOLDER/test_best_weights.h5 --data.root DIR

The file is in github.com/orobix/retina-unet. Images are prepared as its authors do and scaled to
DRIVE's height; the area under the ROC curve is over the field of view, every child together. Wants
h5py (extra `keras`) and OpenCV (pip install opencv-python-headless).
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

from encdec import cli, flags, papers, roc, weights
from encdec.data.biomedical import ChaseDB1
from encdec.errors import InputError
from encdec.random import initial_key

SIZE = (576, 552)  # width and height; DRIVE's images are 584 high
DARK = 0.16  # the brightest channel of pixels outside the field of view is below this


@dataclasses.dataclass(frozen=True)
class Retina:
    """A file of weights, and images to try them on.

    Attributes:
      weights: the .h5 file.
      source: "keras", or "theano", whose convolution turns its kernels: which of the two trained
        these is not known.
      split: "train", "val", or "all" children of the data.
    """

    weights: tyro.conf.Positional[Path]
    data: ChaseDB1 = ChaseDB1()
    source: Literal["keras", "theano"] = "keras"
    split: Literal["train", "val", "all"] = "all"


def prepared(image: np.ndarray) -> np.ndarray:
    """RGB of 0 to 255 -> what the net was trained on, (h, w) in [0, 1]."""
    try:
        import cv2
    except ImportError:
        raise InputError(
            "CLAHE wants OpenCV, which is not there: pip install opencv-python-headless"
        ) from None
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    grey = (grey - grey.mean()) / grey.std()
    grey = np.round(255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)
    grey = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(grey)
    return ((grey / 255) ** (1 / 1.2)).astype(np.float32)


def score(job: Retina) -> dict[str, float]:
    """The scores of `encdec.roc` over the images of the split."""
    model = papers.retina_unet()
    fresh = jax.jit(model.init)(initial_key(0), jnp.zeros((1, 32, 32, 1)))
    model, variables = weights.load(job.weights, model, fresh, source=job.source, report=print)
    apply = jax.jit(lambda x: jax.nn.softmax(model.apply(variables, x)["logits"])[0, ..., 1])
    sums = []
    for split in ("train", "val") if job.split == "all" else (job.split,):
        source = job.data.source(split)
        for i in range(len(source)):
            example = source[i]
            image = np.asarray(Image.fromarray(example["image"]).resize(SIZE, Image.BILINEAR))
            label = np.asarray(Image.fromarray(example["label"]).resize(SIZE, Image.NEAREST))
            label = np.where(image.max(-1) > 255 * DARK, label, 255)
            probability = apply(jnp.asarray(prepared(image))[None, ..., None])
            sums.append(roc.measure(np.asarray(probability), {"label": label}))
            print(f"{source.name(i)}: auc {roc.scores(sums[-1])['auc']:.3f}", flush=True)
    total = {"histogram": np.sum([s["histogram"] for s in sums], axis=0)}
    return {"images": len(sums)} | roc.scores(total)


if __name__ == "__main__":
    cli.guarded(lambda: print(json.dumps(score(flags.parse(Retina, sys.argv[1:])))))
