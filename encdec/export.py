"""A trained model as one program that runs without encdec: StableHLO by `jax.export`, or ONNX."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax import lax
from jaxtyping import Shaped, UInt8

from encdec.errors import InputError, visible
from encdec.experiment import load_run
from encdec.flags import parse
from encdec.plain import plain
from encdec.program import Program
from encdec.tasks.segment import Segment
from encdec.weights.artefact import check_new

Format = Literal["stablehlo", "onnx"]
Platform = Literal["cpu", "cuda", "rocm", "tpu"]
Run = Callable[[UInt8[np.ndarray, "b h w c"]], dict[str, Shaped[np.ndarray, "b ..."]]]

ABOUT, CARD = "export.json", "README.md"

HOW = {
    "stablehlo": """import jax, numpy as np
program = jax.export.deserialize(open("program.stablehlo", "rb").read())
found = program.call(images)  # uint8, (batch, rows, columns, channels)
{first} = np.asarray(found["{first}"])
""",
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("program.onnx")
found = session.run(None, {{"images": images}})  # uint8, (batch, rows, columns, channels)
found = dict(zip([output.name for output in session.get_outputs()], found, strict=True))
""",
}
"""What runs a program, beside NumPy."""


@dataclass(frozen=True)
class Export:
    """A run's model, with what stands before and after it, as a program that needs no encdec.

    Attributes:
      run: folder of a run; its newest checkpoint counts.
      out: the folder to write: the program, export.json, which says what goes in and comes out,
        and README.md, which shows how.
      format: stablehlo, for JAX, or onnx (extra `onnx`).
      platforms: that a StableHLO program is lowered for.
      limit: rows and columns of the largest image; of ONNX those of every image. Objects and ONNX
        want them; otherwise images may have any size.
      tile: side in pixels of the parts in which an image is read; 0: whole.
      probabilities: give these too, not the labels alone.
    """

    run: Path
    out: Path
    format: Format = "stablehlo"
    platforms: tuple[Platform, ...] = ("cpu", "cuda", "tpu")
    limit: tuple[int, int] | None = None
    tile: int = 0
    probabilities: bool = False


def program_command(args: list[str]) -> None:
    """export: a run's model as a program that runs without encdec."""
    asked = parse(Export, args, prog="encdec export")
    check_new(asked.out)
    experiment, variables = load_run(asked.run)
    task, data = experiment.task, experiment.data
    if data.side is not None:
        raise InputError(
            f"a program resizes no images; the run's are resized to sides of {data.side}: give it "
            "images of that size, by Python's encdec.export"
        )
    how = {"limit": asked.limit, "tile": asked.tile, "probabilities": asked.probabilities}
    program = Program(experiment.model, task, shrink=data.shrink, **how)
    choice = {"classes": task.names(data.classes), "format": asked.format}
    export(asked.out, program, variables, platforms=asked.platforms, **choice)
    print(visible(str(asked.out)))


def export(
    folder: str | Path,
    program: Program,
    variables: Any,
    *,
    classes: tuple[str, ...] = (),
    format: Format = "stablehlo",
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
) -> None:
    """Writes the folder, whole or not at all: the program with its weights, export.json, README.md.

    A StableHLO program takes any batch, and any size up to the program's `limit`; ONNX one image
    of that very size. What neither can do stands in docs/export.md.

    Args:
      variables: what `model.apply` takes.
      classes: names, for export.json.
      platforms: that a StableHLO program is lowered for; nothing is compiled.

    Raises:
      InputError: the folder holds something or cannot be written; the program wants a `limit` or
        cannot be had in this format; the extra `onnx` is missing.
    """
    folder = Path(folder)
    check_new(folder)
    check(program, format, platforms)
    variables = jax.tree.map(np.asarray, variables)
    if format == "onnx":
        data, shape, outputs = to_onnx(program, variables)
    else:
        data, shape, outputs = to_stablehlo(program, variables, platforms)
    file = f"program.{format}"
    about = {
        "encdec": version("encdec-jax"),
        "jax": jax.__version__,
        "format": format,
        "file": file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "platforms": list(platforms) if format == "stablehlo" else [],
        "input": {"images": {"dtype": "uint8", "shape": shape, "layout": "b, rows, columns, RGB"}},
        "limit": program.limit,
        "least": least(program),
        "inside": f"images shrunk {program.shrink} times and extended to multiples of "
        f"{program.shrink * program.block} pixels; results are cut to the image",
        "tile": program.tile,
        "outputs": outputs,
        "classes": list(classes),
    }
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        (part / file).write_bytes(data)
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        how = HOW[format].format(first=next(iter(outputs)))
        (part / CARD).write_text(f"# {folder.name}\n\n```python\n{how}```\n\nSee {ABOUT}.\n")
        part.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}; name another") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check(program: Program, format: Format, platforms: tuple[str, ...]) -> None:
    """Raises InputError where the program cannot be had so."""
    objects = not isinstance(program.task, Segment)
    if program.tile < 0 or (program.tile and objects):
        raise InputError(f"tile wants 0 or more pixels, of a segmentation; got {program.tile}")
    if objects and program.probabilities:
        raise InputError("probabilities are a segmentation's; boxes have scores: leave them out")
    if format == "onnx" and objects:
        raise InputError("objects are exported as StableHLO alone: say --format stablehlo")
    if program.limit is None and (objects or format == "onnx"):
        what = "ONNX wants the size of its images" if format == "onnx" else "objects want a limit"
        raise InputError(f"{what}; got none: say --limit ROWS COLUMNS")
    if program.limit is not None and min(program.limit) < least(program):
        raise InputError(f"--limit wants {least(program)} pixels or more; got {program.limit}")
    if not platforms:
        raise InputError("platforms wants one or more of cpu, cuda, rocm, tpu; got none")


def least(program: Program) -> int:
    """Rows and columns that an image must have: a mirror wants two."""
    unpadded = getattr(program.model.encoder, "padded", True) is False
    return program.shrink + 1 if unpadded else 1


def to_stablehlo(
    program: Program, variables: Any, platforms: tuple[str, ...]
) -> tuple[bytes, list[Any], dict[str, Any]]:
    """The program with its weights; the shapes of what goes in and comes out."""
    rules = [f"{name} >= {least(program)}" for name in "hw"]
    if program.limit is not None:
        rules += [f"{name} <= {most}" for name, most in zip("hw", program.limit, strict=True)]
    b, h, w = jax_export.symbolic_shape("b, h, w", constraints=rules)

    def run(images: Any) -> Any:
        # Otherwise XLA computes with the weights as it compiles, and rounds otherwise than `jit`.
        return program(lax.optimization_barrier(variables), images)

    images = jax.ShapeDtypeStruct((b, h, w, program.channels), jnp.uint8)
    try:
        exported = jax_export.export(jax.jit(run), platforms=platforms)(images)
    except InputError:
        raise
    except Exception as error:  # what JAX raises where a size must be known has no common type
        if program.limit is not None:
            raise
        raise InputError(
            f"this model wants to know its images' size ({str(error).splitlines()[0]:.80}): say "
            "--limit ROWS COLUMNS, those of the largest image"
        ) from error
    found = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return bytes(exported.serialize()), ["b", "h", "w", program.channels], described(found)


def to_onnx(program: Program, variables: Any) -> tuple[bytes, list[Any], dict[str, Any]]:
    """As `to_stablehlo`; of one image, of the program's limit."""
    try:
        import jax2onnx
    except ImportError:
        raise InputError('ONNX wants its converter: pip install -e ".[onnx]"') from None
    images = jax.ShapeDtypeStruct((1, *program.limit, program.channels), jnp.uint8)

    def run(images: Any) -> Any:
        return program(jax.tree.map(jnp.asarray, variables), images)

    found = jax.eval_shape(run, images)
    model = jax2onnx.to_onnx(
        plain(run, images), [images], input_names=["images"], output_names=list(found)
    )
    return model.SerializeToString(), list(images.shape), described(found)


def described(found: dict[str, Any]) -> dict[str, Any]:
    """Type and shape of each output."""
    return {
        name: {
            "dtype": str(x.dtype),
            "shape": [n if isinstance(n, int) else str(n) for n in x.shape],
        }
        for name, x in found.items()
    }


def open_export(folder: str | Path) -> Run:
    """The program of such a folder: uint8 images (b, h, w, c) -> its outputs by name.

    Raises:
      InputError: the folder is no such, its program is damaged, or this JAX cannot read it; or,
        when it is called, the images are others than export.json says.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        file, digest, format = (str(about[key]) for key in ("file", "sha256", "format"))
        shape, most, few = about["input"]["images"]["shape"], about["limit"], int(about["least"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"wanted a folder that encdec export wrote; {folder / ABOUT} cannot be read "
            f"({error!r:.80}): name another, or export again"
        ) from error
    if format not in HOW or file != f"program.{format}":
        raise InputError(f"{folder / ABOUT} names no program of ours ({file:.80}); export again")
    try:
        data = (folder / file).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / file} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{folder / file} is not what was written; export again")
    program = (_stablehlo if format == "stablehlo" else _onnx)(folder / file, data)

    def run(images: np.ndarray) -> dict[str, Shaped[np.ndarray, "b ..."]]:
        images = np.asarray(images)
        free = [n if isinstance(n, int) else None for n in shape]
        fits = images.dtype == np.uint8 and images.ndim == 4 and images.size
        fits = fits and all(n in (None, m) for n, m in zip(free, images.shape, strict=True))
        fits = fits and all(
            few <= n <= m for n, m in zip(images.shape[1:3], most or [np.inf] * 2, strict=True)
        )
        if not fits:
            raise InputError(
                f"wanted images of uint8, {shape}, sides of {few} to {most or 'any'}; got "
                f"{images.dtype} of shape {images.shape}"
            )
        return {name: np.asarray(x) for name, x in program(images).items()}

    return run


def _stablehlo(path: Path, data: bytes) -> Callable[[Any], dict[str, Any]]:
    try:
        return jax_export.deserialize(bytearray(data)).call
    except Exception as error:  # another version's, or no program: no common type
        raise InputError(
            f"{path} cannot be read by JAX {jax.__version__} ({error!r:.80}); export again with it"
        ) from error


def _onnx(path: Path, data: bytes) -> Callable[[Any], dict[str, Any]]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError('ONNX wants its runtime: pip install -e ".[onnx]"') from None
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common type
        raise InputError(f"{path} cannot be read ({error!r:.80}); export again") from error
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))
