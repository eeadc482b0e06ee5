"""A model to keep or hand on: params.safetensors, model.json, and a card that says what it is.

model.json rebuilds the network from encdec's own classes: nobody's code is run, nothing is
unpickled, and the digest of every array is checked.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec.errors import InputError
from encdec.experiment import from_json, to_json
from encdec.weights.files import Tensors, read, write

PARAMS, MODEL, CARD = "params.safetensors", "model.json", "README.md"


def save(folder: Path, model: nn.Module, variables: Any, card: str = "") -> None:
    """Writes the folder, whole or not at all.

    Args:
      model: a network or an encoder; the mean and std of its pixels go with it.
      variables: what `model.apply` takes: parameters and statistics.
      card: Markdown: the data, the command, the numbers.

    Raises:
      InputError: the folder holds something, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name another folder")
    arrays = {p: np.asarray(x) for p, x in flatten_dict(variables, sep="/").items()}
    about = {
        "encdec": version("encdec-jax"),
        "model": to_json(model),
        "digests": {path: _digest(array) for path, array in arrays.items()},
    }
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write(part / PARAMS, arrays)
        (part / MODEL).write_text(json.dumps(about, indent=1) + "\n")
        (part / CARD).write_text(card)
        part.replace(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{folder} cannot be written: {error.strerror}; name another") from error


def is_artefact(folder: Path) -> bool:
    """Whether the folder was written by `save`."""
    return (folder / MODEL).is_file()


def restore(folder: Path) -> tuple[nn.Module, Any]:
    """The model and its variables.

    Raises:
      InputError: something is not there, or not what was written; an array is named.
    """
    try:
        about = json.loads((folder / MODEL).read_text())
        model, digests = from_json(about["model"]), about["digests"]
    except FileNotFoundError as error:
        raise InputError(f"wanted a folder of weights with {MODEL}; got {folder}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / MODEL} cannot be read ({error}); fetch the folder again"
        ) from error
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


def _digest(array: np.ndarray) -> str:
    """SHA-256 of its type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
