"""Writes exports and what encdec itself finds; run by test_export.py, as its own process: the
checks of shapes that the tests switch on take no symbols for sizes."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import encdec
from encdec.decoders.unet import DoubleConv
from encdec.encoders.plain import Plain
from encdec.predict import predict
from encdec.program import Program

TRUNK = Plain((3, 4, 4), norm="batch")
VALID = Plain((3, 4), padded=False)
MODELS = {
    "fcn": encdec.EncoderDecoder(TRUNK, encdec.FCN((1, 2, 4), 3), encdec.Pixel(3, scores=True)),
    "unet": encdec.EncoderDecoder(TRUNK, encdec.UNet((1, 2, 4), (4, 3)), encdec.Pixel(3)),
    "fpn": encdec.EncoderDecoder(TRUNK, encdec.FPN((1, 2, 4), 4), encdec.Merge(3, 4, "none")),
    "valid": encdec.EncoderDecoder(
        VALID, encdec.UNet((1, 2), (3,), refine=DoubleConv(padded=False)), encdec.Pixel(3)
    ),
}
CASES = {
    "fcn": ("fcn", {}),
    "unet": ("unet", {}),
    "fpn": ("fpn", {"shrink": 3}),
    "valid": ("valid", {}),
    "tiled": ("unet", {"tile": 32}),
    "tiled_valid": ("valid", {"tile": 48}),
}
SIZES = ((1, 70, 120), (2, 50, 64))


def drawn(model: encdec.EncoderDecoder) -> dict:
    """Variables that are no zeros, the same in every process."""
    size = encdec.geometry(model, (32, 32)).input
    init = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3))))
    rng = np.random.default_rng(0)

    def one(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(x.shape) == 1:  # variances are none below 0
            return rng.uniform(0.5, 1, x.shape).astype(x.dtype)
        return (rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))).astype(x.dtype)

    return jax.tree.map(one, init)


def main(out: Path, names: list[str]) -> None:
    rng, task = np.random.default_rng(1), encdec.Segment(3)
    for name in names:
        kind, how = CASES[name]
        model, found = MODELS[kind], {}
        variables = drawn(model)
        program = Program(model, task, probabilities=True, **how)
        encdec.export(out / name, program, variables, classes=("a", "b", "c"))
        for i, size in enumerate(SIZES):
            images = rng.integers(0, 256, (*size, 3), np.uint8)
            given = {key: how[key] for key in ("shrink", "tile") if key in how}
            found[f"images{i}"] = images
            found[f"labels{i}"] = np.stack([predict(model, variables, x, **given) for x in images])
            own = jax.jit(program)(variables, images)
            found[f"probabilities{i}"] = np.asarray(own["probabilities"])
        np.savez(out / f"{name}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
