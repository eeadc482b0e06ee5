"""A function made plain for converters to other formats: what is known is computed, nothing nests.

What stays are the primitives of `jax.lax`: calls, rules for gradients, names of values and choices
by platform (the one for any platform is taken) are gone.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Where a primitive that calls keeps what it calls."""

IDENTITIES = {"name", "optimization_barrier", "stop_gradient", "copy"}


def plain(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[Any]]:
    """The function for arguments of these shapes; it returns the leaves of its result, in order."""
    closed = jax.make_jaxpr(function)(*shapes)
    return lambda *args: _run(closed, args)


def _run(closed: ClosedJaxpr, args: Any) -> list[Any]:
    jaxpr, known = closed.jaxpr, {}
    known |= dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        values = [x.val if isinstance(x, Literal) else known[x] for x in equation.invars]
        known |= dict(zip(equation.outvars, _step(equation, values), strict=True))
    return [x.val if isinstance(x, Literal) else known[x] for x in jaxpr.outvars]


def _step(equation: Any, values: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name in IDENTITIES:
        return values
    if name == "platform_index":
        return [next(i for i, platforms in enumerate(params["platforms"]) if platforms is None)]
    if name in CALLS:
        inner = params[CALLS[name]]
        return _run(inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ()), values)
    if name == "cond" and not isinstance(values[0], jax.core.Tracer):
        return _run(params["branches"][int(values[0])], values[1:])
    if name in ("while", "scan"):
        return (_while if name == "while" else _scan)(params, values)
    # What has no elements is known; converters take a side of 0 for "as it was".
    if all(0 in x.aval.shape for x in equation.outvars):
        return [np.zeros(x.aval.shape, x.aval.dtype) for x in equation.outvars]
    if name == "concatenate":
        values = [x for x in values if x.size]
    if any(isinstance(x, jax.core.Tracer) for x in values):
        found = equation.primitive.bind(*values, **params)
    else:
        with jax.ensure_compile_time_eval():
            found = equation.primitive.bind(*values, **params)
    return list(found) if equation.primitive.multiple_results else [found]


def _while(params: dict[str, Any], values: list[Any]) -> list[Any]:
    first, then = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    return lax.while_loop(
        lambda state: _run(params["cond_jaxpr"], [*values[:first], *state])[0],
        lambda state: _run(params["body_jaxpr"], [*values[first:then], *state]),
        values[then:],
    )


def _scan(params: dict[str, Any], values: list[Any]) -> list[Any]:
    first, then = params["num_consts"], params["num_consts"] + params["num_carry"]

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = _run(params["jaxpr"], [*values[:first], *carry, *x])
        return found[: then - first], found[then - first :]

    order = {"length": params["length"], "reverse": params["reverse"]}
    carry, found = lax.scan(step, values[first:then], values[then:], **order)
    return [*carry, *found]
