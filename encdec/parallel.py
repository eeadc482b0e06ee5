"""The only file that knows devices: one pure step, under `jit` over a mesh or under `pmap`.

Inside a pmapped step the axis `AXIS` is bound and `psum`, `pmean` reduce over it; anywhere else
they return their argument. Under `jit` the arrays are global, so nothing is left to reduce.
"""

from collections.abc import Callable
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


def device_key(key: jax.Array) -> jax.Array:
    """A key of this device's own, for dropout; the key itself where there is no axis."""
    return jax.random.fold_in(key, lax.axis_index(AXIS)) if axis() else key


def mesh() -> Mesh:
    """All devices of all hosts in one row."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def replicate(tree: Any) -> Any:
    """Puts a host or device tree whole on every device, so that a step compiles once."""
    return jax.device_put(tree, NamedSharding(mesh(), P()))


def split(batch: Any) -> Any:
    """Rows of this host's batch over its devices, as one global array."""
    rows = NamedSharding(mesh(), P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), batch)


def check_batch(batch: int) -> None:
    """Raises InputError unless the global batch divides evenly over devices."""
    if batch < 1 or batch % jax.device_count():
        raise InputError(
            f"batch must be a positive multiple of the {jax.device_count()} devices; got {batch}"
        )


def jit(step: Callable, donate: bool = True) -> Callable:
    """Compiles `step(state, batch, *rest)` over the mesh: state whole, batch split by rows."""
    whole, rows = NamedSharding(mesh(), P()), NamedSharding(mesh(), P(AXIS))
    return jax.jit(
        lambda state, batch, *rest: step(state, jax.lax.with_sharding_constraint(batch, rows), *rest),
        out_shardings=whole,
        donate_argnums=(0,) if donate else (),
    )


def pmap(step: Callable, donate: bool = True) -> Callable:
    """Compiles `step(state, batch, *rest)` with the axis `AXIS` bound: one program a device.

    State and outputs are whole, as under `jit`: no leading device axis to strip or to save.
    """
    local = jax.local_device_count()

    def rows(x: jax.Array) -> jax.Array:
        return x.reshape(local, x.shape[0] // local, *x.shape[1:])

    def call(state: Any, batch: Any, *rest: Any) -> Any:
        return mapped(rest)(state, jax.tree.map(rows, batch), *rest)

    compiled = {}

    def mapped(rest: tuple) -> Callable:
        if len(rest) not in compiled:
            compiled[len(rest)] = jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(None, 0, *(None for _ in rest)),
                out_axes=None,
                donate_argnums=(0,) if donate else (),
            )
        return compiled[len(rest)]

    return call
