"""Files of named arrays, read without running anything that is in them."""

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from encdec.errors import InputError

Tensors = dict[str, np.ndarray]
"""Arrays by their published names."""

PICKLED = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar", ".caffemodel", ".npy")


def read(path: Path) -> Tensors:
    """The arrays of a .safetensors, .npz or Keras .h5 file (extra `keras`).

    Raises:
      InputError: there is no such file, it is of another kind, cut short or damaged. A pickle can
        run code when it is opened: it is refused, with the line that converts it elsewhere.
    """
    if path.is_dir():
        raise InputError(f"wanted a file of weights; {path} is a folder: name a file in it")
    if not path.is_file():
        raise InputError(f"wanted a file of weights; there is no {path}")
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise InputError(
            f"{path} may run code when it is opened; convert it where that is safe: python -c "
            '"import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in '
            f"torch.load('{path.name}', map_location='cpu', weights_only=True).items()}}, "
            f"'{path.stem}.safetensors')\""
        )
    readers = {".safetensors": _safetensors, ".npz": _npz, ".h5": _keras, ".hdf5": _keras}
    if suffix not in readers:
        raise InputError(f"wanted one of {', '.join(readers)}; got {path}: convert it")
    tensors = readers[suffix](path)
    if not tensors:
        raise InputError(f"{path} holds no arrays: name another file")
    return tensors


def write(path: Path, tensors: Tensors) -> None:
    """A .safetensors file, whole or not at all.

    Raises:
      InputError: it has another suffix, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"weights are written as .safetensors; got {path}: name it so")
    if path.exists():
        raise InputError(f"{path} is there already: name another file")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, part)
        part.chmod(0o644)  # safetensors lets only the owner read
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"{path} cannot be written: {_line(error)}; name another file") from error


def _safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except AttributeError as error:  # a type, float8, that numpy has not
        raise InputError(f"{path} holds numbers of another type ({error}): convert it") from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _npz(path: Path) -> Tensors:
    name = ""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is damaged, or no .npz; fetch or copy it again")
    try:
        with np.load(path, allow_pickle=False) as file:
            tensors = {}
            for name in file.files:
                tensors[name] = file[name]
            return tensors
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error, name) from error


def _keras(path: Path) -> Tensors:
    """Layers of Keras 1, `LAYER_W` and `LAYER_b`, as LAYER.W and LAYER.b."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} wants h5py: pip install 'encdec-jax[keras]'") from None
    tensors: Tensors = {}
    try:
        with h5py.File(path) as file:
            for layer, group in file.get("model_weights", file).items():
                for name, array in group.items():
                    tensors[f"{layer}.{name.removeprefix(f'{layer}_')}"] = np.asarray(array)
    except (OSError, RuntimeError, AttributeError, KeyError) as error:
        raise _damaged(path, error, next(reversed(tensors), "")) from error
    return tensors


def _damaged(path: Path, error: Exception, name: str = "") -> InputError:
    where = f" at {name!r}" if name else ""
    return InputError(f"{path} is damaged{where} ({_line(error)}); fetch or copy it again")


def _line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
