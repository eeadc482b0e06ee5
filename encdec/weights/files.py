"""Files of named arrays, read without running anything that is in them."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from encdec.errors import InputError

Tensors = dict[str, np.ndarray]
"""Arrays by their published names."""

LARGEST = 2**33
"""Bytes that the arrays of a file may take, unpacked; the largest network here takes 0.6e9."""

MOST = 10_000
"""Arrays that a file may have; the largest network here has 2,000."""

PICKLED = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar", ".caffemodel", ".npy")


def read(path: Path) -> Tensors:
    """The arrays of a .safetensors, .npz or Keras .h5 file (extra `keras`).

    Raises:
      InputError: there is no such file, it is of another kind, cut short or damaged, holds more
        than `MOST` arrays or `LARGEST` bytes, what is no number, or a link to another file. A
        pickle can run code when it is opened: it is refused, with the line that converts it
        elsewhere.
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
    except (SafetensorError, OSError, ValueError, TypeError, MemoryError) as error:
        raise _damaged(path, error) from error


def _npz(path: Path) -> Tensors:
    """Its members are read by name into memory, after their number and sizes were seen."""
    name = ""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is damaged, or no .npz; fetch or copy it again")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [member.file_size for member in archive.infolist()]
        _check_sizes(path, len(sizes), sum(sizes))
        with np.load(path, allow_pickle=False) as file:
            tensors = {}
            for name in file.files:
                tensors[name] = _numbers(file[name])
            return tensors
    except InputError:
        raise
    except Exception as error:  # zipfile raises NotImplementedError and zlib.error, for two
        raise _damaged(path, error, name) from error


def _keras(path: Path) -> Tensors:
    """Layers of Keras 1, `LAYER_W` and `LAYER_b`, as LAYER.W and LAYER.b."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} wants h5py: pip install 'encdec-jax[keras]'") from None
    tensors: Tensors = {}
    total = 0
    try:
        with h5py.File(path) as file:
            top = _own(file, "model_weights") if "model_weights" in file else file
            for layer in top:
                group = _own(top, layer)
                for name in group:
                    array = _own(group, name)
                    total += array.nbytes
                    _check_sizes(path, len(tensors), total)
                    if array.external or array.is_virtual:
                        raise ValueError("its numbers are in another file")
                    name = f"{layer}.{name.removeprefix(f'{layer}_')}"
                    tensors[name] = _numbers(np.asarray(array))
    except InputError:
        raise
    except Exception as error:  # HDF5 has hundreds of errors
        raise _damaged(path, error, next(reversed(tensors), "")) from error
    return tensors


def _own(group: Any, name: str) -> Any:
    """What a group of HDF5 holds itself: not a link, which may lead to another file."""
    if type(link := group.get(name, getlink=True)).__name__ != "HardLink":
        raise ValueError(f"{name!r} is a {type(link).__name__}")
    return group[name]


def _numbers(array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise ValueError(
            f"no array of numbers, but {getattr(array, 'dtype', type(array).__name__)}"
        )
    return array


def _check_sizes(path: Path, arrays: int, total: int) -> None:
    if arrays > MOST or total > LARGEST:
        raise InputError(
            f"{path}: at most {MOST:,} arrays of {LARGEST:,} bytes together are wanted; it says "
            f"{arrays:,} of {total:,}; name a file of weights"
        )


def _damaged(path: Path, error: Exception, name: str = "") -> InputError:
    where = f" at {name!r}" if name else ""
    return InputError(f"{path} is damaged{where} ({_line(error)}); fetch or copy it again")


def _line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
