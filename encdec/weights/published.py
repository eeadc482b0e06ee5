"""Files of published weights -> a model and its variables, and back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from encdec.errors import InputError
from encdec.layers import bilinear_init
from encdec.model import EncoderDecoder
from encdec.weights import convert, densenet
from encdec.weights.convert import Report
from encdec.weights.files import Tensors, read, write
from encdec.weights.networks import Source, as_published, names, spare


def load(
    path: str | Path,
    model: nn.Module,
    variables: Any,
    *,
    source: Source,
    part: str = "",
    keep: tuple[str, ...] = (),
    report: Callable[[Report], Any] | None = None,
) -> tuple[nn.Module, Any]:
    """The model with the weights' own pixel normalisation, and its variables with the weights.

    What else of the encoder differs from library to library, epsilon and padding, is set too.

    Strict: every tensor has one place, every shape is checked, and nothing is half loaded. A
    classifier that an encoder has no place for is left out, and reported.

    Args:
      path: .safetensors, .npz or .h5; nothing pickled.
      model: a network or an encoder.
      variables: as `model.init` makes them; kernels of the first layer for other images than RGB
        take the published ones summed (one channel) or repeated and scaled.
      source: whose names the file has (`encdec.weights.networks`).
      part: "encoder" or "decoder": the file is of that part; "": of all that `model` is.
      keep: parts that stay as they are, such as ("head/score",) where the classes are others.
      report: called with what was taken, dropped and kept.

    Raises:
      InputError: the file is not readable or not of this network; one tensor is named.
    """
    given, variables = dict(variables), below(variables, part)
    module = part_of(model, part)
    tensors = {densenet.renamed(name): array for name, array in read(Path(path)).items()}
    if source == "caffe":
        tensors = _rgb(tensors)
    table = convert.published(variables, names(module, source), source)
    new, told = convert.imported(
        tensors,
        variables,
        table,
        spare=partial(spare, module, source),
        keep=keep,
        turned=source == "theano",
    )
    for name in told.dropped:
        if name.startswith("upscore"):
            _check_bilinear(name, tensors[name])
    if report is not None:
        report(told)
    variables = _into(given, part, new)
    if part == "decoder":
        return model, variables
    encoder = module.encoder if isinstance(module, EncoderDecoder) else module
    encoder = as_published(encoder, source)
    whole = isinstance(model, EncoderDecoder)
    return model.clone(encoder=encoder) if whole else encoder, variables


def export(
    path: str | Path, model: nn.Module, variables: Any, *, source: Source, part: str = ""
) -> None:
    """Writes the weights under another library's names and layout, as .safetensors.

    They expect pixels normalised as `model.encoder.mean` and `std` say.

    Raises:
      InputError: the source has no such network, or the file cannot be written.
    """
    variables = below(variables, part)
    table = convert.published(variables, names(part_of(model, part), source), source)
    tensors = convert.exported(variables, table, source, turned=source == "theano")
    write(Path(path), _rgb(tensors) if source == "caffe" else tensors)


def part_of(model: nn.Module, part: str) -> nn.Module:
    """The encoder, the decoder or the head of a network; all of it, if the part is "".

    Raises:
      InputError: it has no such part.
    """
    known = ("encoder", "decoder", "head") if isinstance(model, EncoderDecoder) else ()
    if part and part not in known:
        wanted = f"one of {', '.join(known)}" if known else "nothing: this is an encoder already"
        raise InputError(f"part wants {wanted}; got {part!r}")
    return getattr(model, part) if part else model


def below(variables: Any, part: str) -> Any:
    """The variables of one part of a network; of all of it, if the part is "".

    Raises:
      InputError: it has no parameters there.
    """
    if part and part not in variables["params"]:
        raise InputError(f"part wants one of {sorted(variables['params'])}; got {part!r}")
    if not part:
        return variables
    return {kind: tree[part] for kind, tree in variables.items() if part in tree}


def _into(variables: Any, part: str, new: Any) -> Any:
    new = jax.tree.map(jax.numpy.asarray, new)
    if not part:
        return new
    return variables | {kind: variables[kind] | {part: tree} for kind, tree in new.items()}


def _rgb(tensors: Tensors) -> Tensors:
    """Caffe's nets see blue, green, red: the first kernel the other way round."""
    first = next((name for name in ("conv1_1.0", "conv1.0") if name in tensors), None)
    colours = first and tensors[first].ndim == 4
    return tensors | {first: tensors[first][:, ::-1]} if colours else tensors


def _check_bilinear(name: str, kernel: np.ndarray) -> None:
    """Raises InputError where a fixed deconvolution was trained after all."""
    classes, others, size = kernel.shape[:3]
    shape = (size, size, classes if others > 1 else 1, classes)
    wanted = bilinear_init(jax.random.key(0), shape).transpose(3, 2, 0, 1)
    if not np.allclose(kernel, wanted, atol=1e-6):
        raise InputError(
            f"{name!r} is not bilinear, and the network's are fixed: take one whose upsampling is "
            '"learned"'
        )
