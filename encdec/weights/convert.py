"""Published weights -> our variables, and back: every tensor once, every shape checked.

A network has a table of names, pairs (our module, theirs); a module's arrays follow by rule: a
kernel (h, w, in, out) is published as (out, in, h, w), or of a transposed convolution as (in, out,
h, w) turned by half a circle; a matrix is transposed; a running variance stays as it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec.errors import InputError
from encdec.weights.files import Tensors

TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
LEAVES = {
    "caffe": {"kernel": "0", "bias": "1"},
    "keras": {"kernel": "W", "bias": "b"},
    "theano": {"kernel": "W", "bias": "b"},
}
"""Published names of a module's arrays; of those not named, ours."""

TRANSPOSED = re.compile(r"(^|/)(upsample_s\d+/conv|deconvolution\w*)/kernel$")

FC = re.compile(r"fc[67]/kernel$")
"""A classifier's matrices."""

Pairs = Iterable[tuple[str, str]]
"""Paths of modules, or of single parameters: ours ("stage1_block1/conv1"), theirs."""


@dataclass(frozen=True)
class Report:
    """What became of the arrays.

    Attributes:
      taken: number of published tensors that are in the result, each once.
      dropped: published names that the network has no place for.
      kept: our arrays that stayed as they were.
      adapted: our kernels whose input channels were summed or repeated.
    """

    taken: int
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.taken} tensors taken"]
        for word in ("dropped", "kept", "adapted"):
            names = getattr(self, word)
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{word}: {', '.join(names[:4])}{more}")
        return "; ".join(parts)


def published(variables: Any, pairs: Pairs, source: str) -> dict[str, str]:
    """Their name of every array of ours, by our path.

    Raises:
      InputError: the table misses an array.
    """
    leaves = TORCH if source not in LEAVES else LEAVES[source]
    table, named = dict(pairs), {}
    for path in flatten_dict(variables, sep="/"):
        module, leaf = path.split("/", 1)[1].rpartition("/")[::2]
        whole = f"{module}/{leaf}" if module else leaf
        if whole in table:
            named[path] = table[whole]
        elif module in table:
            named[path] = f"{table[module]}.{leaves.get(leaf, leaf)}"
        else:
            raise InputError(
                f"{source} has no name for {path}: it has no such network; name another source, or "
                "a part of the network, encoder or decoder"
            )
    if len(set(named.values())) != len(named):
        raise AssertionError("two arrays have one published name")
    return named


def imported(
    tensors: Tensors,
    variables: Any,
    names: dict[str, str],
    *,
    spare: Callable[[str], bool],
    keep: tuple[str, ...] = (),
    turned: bool = False,
) -> tuple[Any, Report]:
    """The variables with the tensors in their places; nothing is half done.

    Args:
      names: theirs by our path (`published`).
      spare: of a published name that the network has no place for, whether that may be.
      keep: our paths, "head/score", that stay as they are.
      turned: their kernels run the other way (Theano's convolution).

    Raises:
      InputError: a tensor is missing, left over, of another shape or type, or not finite; it is
        named.
    """
    flat = flatten_dict(variables, sep="/")
    stay = tuple(path for path in flat if _below(path.split("/", 1)[1], keep))
    for wanted in keep:
        if not any(_below(path.split("/", 1)[1], (wanted,)) for path in stay):
            raise InputError(f"keep wants parts that the network has; got {wanted!r}")
    used = {path: name for path, name in names.items() if path not in stay}
    left = tensors.keys() - set(used.values())
    unused = {names[path] for path in stay}
    over = sorted(name for name in left if not (name in unused or spare(name)))
    missing = [(path, name) for path, name in used.items() if name not in tensors]
    if missing:
        has = repr(over[0]) if over else f"{len(used) - len(missing)} of {len(used)}"
        path, name = missing[0]
        raise InputError(
            f"the weights lack {name!r} ({len(missing)} missing; they have {has}): name the "
            f"network and source that they are of, or keep {path.split('/', 1)[1]}"
        )
    if over:
        raise InputError(
            f"the weights have {over[0]!r}, for which the network has no place ({len(over)} left "
            "over): name the network that they are of, or leave it out of the file"
        )
    if not used:
        raise InputError("every part of the network is kept, and no tensor taken: keep less")
    new, adapted = {}, []
    for path, name in used.items():
        old = flat[path]
        if tensors[name].dtype.kind != "f" and tensors[name].dtype.name != "bfloat16":
            raise InputError(
                f"{name!r} wants floating point numbers, got {tensors[name].dtype}: fetch the "
                "weights again"
            )
        array = _ours(path, tensors[name], old.shape, turned)
        if array.shape != old.shape and _stem(array.shape, old.shape):
            array = to_channels(array, old.shape[2])
            adapted.append(path)
        if array.shape != old.shape:
            wanted = theirs(path, name, np.empty(old.shape, bool)).shape
            raise InputError(
                f"{name!r} wants the shape {wanted}, got {tensors[name].shape}: name the network "
                "that the weights are of, or keep that part"
            )
        with np.errstate(over="ignore"):
            new[path] = array.astype(old.dtype)
        if not np.isfinite(new[path]).all():
            raise InputError(f"{name!r} holds numbers that are not finite: fetch the weights again")
        if path.endswith("/var") and (new[path] < 0).any():
            raise InputError(f"{name!r} holds a variance below 0: fetch the weights again")
    dropped = tuple(sorted(left - {n for n in left if n.endswith("num_batches_tracked")}))
    return unflatten_dict(flat | new, sep="/"), Report(len(new), dropped, stay, tuple(adapted))


def exported(variables: Any, names: dict[str, str], source: str, turned: bool = False) -> Tensors:
    """The arrays under their published names and in their layout; the reverse of `imported`."""
    flat = flatten_dict(variables, sep="/")
    tensors = {name: theirs(path, name, np.asarray(flat[path])) for path, name in names.items()}
    if turned:
        tensors = {n: x[:, :, ::-1, ::-1] if x.ndim == 4 else x for n, x in tensors.items()}
    if source not in LEAVES:  # a torch module counts the batches that its statistics are of
        for name in names.values():
            if name.endswith("running_mean"):
                counter = name.removesuffix("running_mean") + "num_batches_tracked"
                tensors[counter] = np.zeros((), np.int64)
    return tensors


def to_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel (h, w, 3, out) for images of so many channels: the sum over its own for one,
    else they are repeated in turn and scaled by 3 / channels, as timm and smp have it."""
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return kernel[:, :, np.arange(channels) % kernel.shape[2]] * (kernel.shape[2] / channels)


def _stem(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Whether two kernels differ in input channels alone, where theirs sees three colours."""
    return len(ours) == 4 and theirs[2:3] == (3,) and theirs == (*ours[:2], 3, ours[3])


def _ours(path: str, array: np.ndarray, shape: tuple[int, ...], turned: bool) -> np.ndarray:
    if path.endswith("kernel") and array.ndim == 4:
        if TRANSPOSED.search(path):
            grouped = shape[2] == array.shape[1] == 1
            return array.transpose(2, 3, *((1, 0) if grouped else (0, 1)))[::-1, ::-1]
        array = array[:, :, ::-1, ::-1] if turned else array
        return array.transpose(2, 3, 1, 0)
    if path.endswith("kernel") and array.ndim == 2:
        if len(shape) == 4 and FC.search(path):  # as a convolution (FCN §3.1)
            h, w, inputs, outputs = shape
            if array.shape == (outputs, inputs * h * w):
                return array.reshape(outputs, inputs, h, w).transpose(2, 3, 1, 0)
            return array
        return array.T if len(shape) == 2 else array
    alone = path.endswith("layer_scale") and array.shape[1:] == (1, 1)
    return array.reshape(-1) if alone else array


def theirs(path: str, name: str, array: np.ndarray) -> np.ndarray:
    """An array of ours in the layout that it has under a published name."""
    if name.endswith("layer_scale"):
        return array[:, None, None]
    if path.endswith("kernel") and array.ndim == 4:
        if TRANSPOSED.search(path):
            grouped = array.shape[2] == 1
            return array[::-1, ::-1].transpose(*((3, 2) if grouped else (2, 3)), 0, 1)
        array = array.transpose(3, 2, 0, 1)
        matrix = FC.search(path) and name.startswith(("classifier", "roi_heads"))
        return array.reshape(len(array), -1) if matrix else array
    return array.T if path.endswith("kernel") else array


def _below(path: str, parts: tuple[str, ...]) -> bool:
    return any(path == part or path.startswith(f"{part}/") for part in parts)


def within(pairs: Pairs, ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """The pairs of a part, as pairs of the whole network."""
    for mine, yours in pairs:
        yield f"{ours}/{mine}", f"{theirs}{yours}"
