"""The only file that knows devices: one pure step, under `jit` over a mesh or under `pmap`.

Inside a pmapped step the axis `AXIS` is bound and `psum`, `pmean` reduce over it; anywhere else
they return their argument. Under `jit` the arrays are global, so nothing is left to reduce.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from encdec.errors import InputError

AXIS = "devices"


def axis() -> str | None:
    """Name of the device axis where one is bound (inside `pmap`), else None."""
    try:
        lax.axis_size(AXIS)
    except NameError:
        return None
    return AXIS


def psum(tree: Any) -> Any:
    """Sum over the devices of a pmapped step."""
    return lax.psum(tree, AXIS) if axis() else tree


def pmean(tree: Any) -> Any:
    """Mean over the devices of a pmapped step."""
    return lax.pmean(tree, AXIS) if axis() else tree


def gather(tree: Any) -> Any:
    """The rows of all devices of a pmapped step, in their order."""
    return lax.all_gather(tree, AXIS, tiled=True) if axis() else tree


def device_key(key: jax.Array) -> jax.Array:
    """A key of this device's own, for dropout; the key itself where there is no axis."""
    return jax.random.fold_in(key, lax.axis_index(AXIS)) if axis() else key


def mesh(here: bool = False) -> Mesh:
    """All devices of all hosts in one row, or those of this host."""
    return Mesh(np.array(jax.local_devices() if here else jax.devices()), (AXIS,))


def replicate(tree: Any) -> Any:
    """Puts a tree whole on every device; a step that starts from it compiles once."""
    whole = NamedSharding(mesh(), P())
    if jax.process_count() == 1:
        return jax.device_put(tree, whole)
    return jax.jit(lambda tree: tree, out_shardings=whole)(tree)  # reaches other hosts' devices


def replicated(shapes: Any) -> Any:
    """Shapes and types of a tree, to be placed as `replicate` does."""
    whole = NamedSharding(mesh(), P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)


def on_this_host(tree: Any) -> Any:
    """A replicated tree for programs that this host runs alone."""
    if jax.process_count() == 1:
        return tree
    whole = NamedSharding(mesh(here=True), P())
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x), whole), tree)


def check_batch(batch: int) -> None:
    """Raises InputError unless the global batch divides evenly over the devices."""
    if batch < 1 or batch % jax.device_count():
        raise InputError(
            f"batch must be a positive multiple of the {jax.device_count()} devices; got {batch}"
        )


@dataclass(frozen=True)
class Compiled:
    """A step over all devices: `(state, batch, *rest)`, the batch this host's rows as numpy.

    State, the rest and the outputs are whole on every device, under both drivers.
    """

    function: Any
    split: Callable
    programs: Callable[[], int]
    """How many programs were compiled: one, if shapes and types stay the same."""
    whole: Callable[[Any], Any] = lambda tree: tree
    """Makes the outputs arrays of all hosts' devices, where they are of this host's alone."""

    def __call__(self, state: Any, batch: Any, *rest: Any) -> Any:
        return self.whole(self.function(state, jax.tree.map(self.split, batch), *rest))

    def memory(self, state: Any, batch: Any, *rest: Any) -> int:
        """Bytes that one step holds on a device: arguments, results, what lies between them."""
        lowered = self.function.lower(state, jax.tree.map(self.split, batch), *rest)
        sizes = lowered.compile().memory_analysis()  # the step's own program: no second compile
        held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return held + sizes.temp_size_in_bytes


def jit(step: Callable, *, donate: bool = True, here: bool = False) -> Compiled:
    """The step under `jit`: arrays are global, the batch is split over the mesh by rows.

    Args:
      here: run it on this host's devices alone, whatever the other hosts do.
    """
    rows, whole = (NamedSharding(mesh(here), spec) for spec in (P(AXIS), P()))
    function = jax.jit(step, out_shardings=whole, donate_argnums=(0,) if donate else ())
    return Compiled(
        function, lambda x: jax.make_array_from_process_local_data(rows, x), function._cache_size
    )


def pmap(step: Callable, *, rest: int = 1, donate: bool = True, here: bool = False) -> Compiled:
    """The step under `pmap`: each device sees its rows, and the axis `AXIS` is bound.

    Args:
      rest: number of arguments after the batch.
      here: as for `jit`.
    """
    local, traces = jax.local_device_count(), []

    def counted(*args: Any) -> Any:
        traces.append(1)  # pmap does not tell what it compiled: each program is traced once
        return step(*args)

    function = jax.pmap(
        counted,
        axis_name=AXIS,
        in_axes=(None, 0) + (None,) * rest,
        out_axes=None,
        donate_argnums=(0,) if donate else (),
        devices=jax.local_devices() if here else None,
    )
    return Compiled(
        function,
        lambda x: x.reshape(local, len(x) // local, *x.shape[1:]),
        lambda: len(traces),
        (lambda tree: tree) if here else of_all_hosts,
    )


def of_all_hosts(tree: Any) -> Any:
    """A tree that is whole on each device of each host, of arrays that know of this host's alone:
    what `pmap` gives. Nothing is copied."""
    if jax.process_count() == 1:
        return tree
    whole = NamedSharding(mesh(), P())

    def widened(x: jax.Array) -> jax.Array:
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, whole, copies)

    return jax.tree.map(widened, tree)
