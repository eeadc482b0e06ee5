"""A model to keep or hand on: params.safetensors, model.json, and a card that says what it is.

model.json rebuilds the network from encdec's own classes: nobody's code is run, nothing is
unpickled, and the digests of the network's fields and of every array are checked. With a run's
experiment.json beside them, which names its classes and its task, it also predicts and is scored.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec.errors import InputError
from encdec.experiment import Experiment, from_json, to_json
from encdec.weights.files import Tensors, read, write

PARAMS, MODEL, CARD = "params.safetensors", "model.json", "README.md"
EXPERIMENT = "experiment.json"


def save(
    folder: str | Path,
    model: nn.Module,
    variables: Any,
    card: str = "",
    experiment: Experiment | None = None,
) -> None:
    """Writes the folder, whole or not at all.

    Args:
      model: a network or an encoder; the mean and std of its pixels go with it.
      variables: what `model.apply` takes: parameters and statistics.
      card: Markdown: the data, the command, the numbers.
      experiment: that trained this model; where its data lie is left out, if the names of their
        classes are known without.

    Raises:
      InputError: the folder holds something, or cannot be written; the model is not made of
        encdec's own classes, or the variables are not what `model.apply` takes.
    """
    folder = Path(folder)
    check_new(folder)
    if "params" not in variables:
        raise InputError(
            f'variables want "params" and the statistics beside them; got {sorted(variables)[:4]}: '
            "give all that model.init returned"
        )
    fields = _fields(model)
    arrays = {p: np.asarray(x) for p, x in flatten_dict(variables, sep="/").items()}
    about = {
        "encdec": version("encdec-jax"),
        "model": fields,
        "digest": _text_digest(fields),
        "digests": {path: _digest(array) for path, array in arrays.items()},
    }
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write(part / PARAMS, arrays)
        (part / MODEL).write_text(json.dumps(about, indent=1) + "\n")
        (part / CARD).write_text(card)
        if experiment is not None:
            fields = to_json(portable(experiment))
            (part / EXPERIMENT).write_text(json.dumps(fields, indent=1) + "\n")
        part.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}; name another") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Raises InputError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name another folder")


def portable(experiment: Experiment) -> Experiment:
    """The same with neither the folder of its data nor the weights from which it started."""
    data = experiment.data
    names = {"names": data.classes} if hasattr(data, "names") else {}
    gone = {name: None for name in ("root", "data_dir", "sbd") if hasattr(data, name)}
    elsewhere = replace(data, **names, **gone)
    try:
        known = elsewhere.classes == data.classes
    except InputError:  # they stand in the data
        known = False
    return replace(experiment, data=elsewhere if known else data, start=None)


def _fields(model: nn.Module) -> Any:
    """The model as JSON, from which it comes back."""
    try:
        fields = json.loads(json.dumps(to_json(model)))
        same = from_json(fields) == model
    except (TypeError, InputError):
        same = False
    if not same:
        raise InputError(
            f"a model of encdec's own classes is wanted, dtypes as strings; got {model!r:.200}"
        )
    return fields


def is_artefact(folder: Path) -> bool:
    """Whether the folder was written by `save`."""
    return (folder / MODEL).is_file()


def restore(folder: str | Path) -> tuple[nn.Module, Any]:
    """The model and its variables.

    Raises:
      InputError: something is not there, or not what was written; an array is named.
    """
    folder = Path(folder)
    if not is_artefact(folder):
        raise InputError(f"wanted a folder of weights with {MODEL}; got {folder}: name another")
    try:
        about = json.loads((folder / MODEL).read_text())
        fields, digest, digests = about["model"], about["digest"], dict(about["digests"])
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise InputError(
            f"{folder / MODEL} cannot be read ({error!r:.80}); fetch the folder again"
        ) from error
    if _text_digest(fields) != digest:
        raise InputError(f"{folder / MODEL} is not what was written; fetch the folder again")
    model = from_json(fields)
    if not isinstance(model, nn.Module):
        raise InputError(f"{folder / MODEL} holds no network; fetch the folder again")
    arrays = read(folder / PARAMS)
    _check(folder / PARAMS, arrays, digests)
    return model, unflatten_dict(jax.tree.map(jax.numpy.asarray, arrays), sep="/")


def _check(path: Path, arrays: Tensors, digests: dict[str, str]) -> None:
    odd = sorted(arrays.keys() ^ digests.keys())
    if odd:
        state = "lacks" if odd[0] in digests else "has an unknown"
        raise InputError(f"{path} {state} {odd[0]!r}; fetch the folder again")
    for name, array in arrays.items():
        if _digest(array) != digests[name]:
            raise InputError(
                f"{path} is damaged: {name!r} is not what was written; fetch the folder again"
            )


def _text_digest(fields: Any) -> str:
    """SHA-256 of the fields, however they are spaced."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    """SHA-256 of its type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
