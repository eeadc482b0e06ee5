"""Memory of a step or a forward pass on a CPU, from its jaxpr: nothing is compiled or computed.

What XLA does (jaxlib 0.10.2), as far as it decides what lies in memory at the same time:

- Convolutions, dots and loops read and write memory; reductions, paddings and concatenations write
  it (several windows read them). All else is fused: computed anew in whatever reads it, which keeps
  what it is computed from. 16-bit floats are computed as float32.
- A convolution wants channels last. Operands in another order are copied: the kernel for its map's
  gradient, map and gradient for the kernel's.
- Everything runs as soon as what it reads is there, breadth first. So kernels are copied before the
  first layer and maps when they are made, and the copies wait for the backward pass; a gradient
  changes its parameter at once.
- Parameters and the optimizer's state are updated in place.
"""

import math
from collections.abc import Iterable
from functools import partial
from itertools import accumulate, count
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from encdec.heads.rcnn import RCNN
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.tasks.task import Task
from encdec.train.optimizer import Optimizer
from encdec.train.step import create_state, train_step

SAME = {"reshape", "squeeze", "expand_dims", "copy", "stop_gradient", "optimization_barrier"}
READ = {"conv_general_dilated", "dot_general", "sort", "scatter", "scatter-add", "while", "scan"}
WRITTEN = {"pad", "concatenate", "reduce_sum", "reduce_max", "reduce_min", "cumsum", "random_bits"}
CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


class Operation:
    """Writes `size` bytes of memory once all that it reads is there; `place` is its turn."""

    numbers = count()

    def __init__(self, size: int, reads: Iterable["Operation"]) -> None:
        self.size, self.reads = size, set(reads)
        depth = 1 + max((read.place[0] for read in self.reads), default=0)
        self.place = (depth, next(self.numbers))


class Value:
    """A value of the jaxpr: what its sources wrote, or `fused`, to be computed from that."""

    def __init__(self, size: int, sources: Iterable[Operation] = (), fused: bool = False) -> None:
        self.size, self.sources, self.fused = size, set(sources), fused
        self.copies: dict[Any, set[Operation]] = {}

    def written(self, order: Any = None) -> set[Operation]:
        """What wrote it to memory: once as it is, and once for every other order of its axes."""
        if order is not None:
            return self.copies.setdefault(order, {Operation(self.size, self.sources)})
        if self.fused:
            self.sources, self.fused = {Operation(self.size, self.sources)}, False
        return self.sources


class Sum(Task):
    """A task of a loss that reads every output."""

    def __init__(self, samples: bool) -> None:
        self.samples = samples

    def loss(self, outputs: Any, batch: Any, key: Any) -> dict[str, tuple[Any, Any]]:
        values = jax.tree.leaves(outputs)
        total = sum((x.astype(jnp.float32) ** 2).sum() for x in values)
        return {"sum": (total, jnp.float32(1))}


def step_memory(
    model: EncoderDecoder,
    size: tuple[int, int],
    batch: int,
    optimizer: Optimizer = Optimizer(),  # noqa: B008 (frozen)
    channels: int = 3,
) -> int:
    """Bytes that a training step holds at its peak, arguments included, on one CPU device.

    An estimate of `parallel.Compiled.memory`, without augmentation; for cross entropy, or, where
    there are no logits of pixels, for a sum over all outputs: matching takes more.

    Args:
      size: (height, width) of the images.
      batch: images on the device.
    """
    shape = jax.ShapeDtypeStruct
    images = shape((batch, *size, channels), jnp.float32)
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    task = Sum(isinstance(model.head, RCNN))
    if "logits" in outputs:
        classes = model.head.classes
        task = Segment(classes, mode="multiclass" if classes > 1 else "binary")
    parts = {"model": model, "optimizer": optimizer}
    step = partial(train_step, **parts, task=task, augment=lambda key, batch: batch, steps=1000)
    arrays = {"image": images, "label": shape((batch, *size), jnp.int32)}
    if task.samples:  # its regions are as many, however many boxes there are
        arrays |= {"boxes": shape((batch, 1, 4), jnp.float32)}
        arrays |= {name: shape((batch, 1), bool) for name in ("box_mask", "crowd")}
        arrays |= {"classes": shape((batch, 1), jnp.int32), "index": shape((batch,), jnp.int32)}
        arrays |= {"size": shape((batch, 2), jnp.int32)}
    state = jax.eval_shape(lambda: create_state(*parts.values(), (1, *size, channels), 0, 1000))
    key = jax.eval_shape(lambda: jax.random.key(0))
    closed = jax.make_jaxpr(step)(state, arrays, key)
    given = [Value(_bytes(v)) for v in closed.jaxpr.invars]
    return sum(value.size for value in given) + _peak(_results(closed.jaxpr, given))


def forward_memory(model: EncoderDecoder, shape: tuple[int, int, int]) -> int:
    """Bytes that one image (h, w, c) and its maps hold at their peak, on one CPU device.

    A rougher estimate than `step_memory`: 0.6 to 1.6 of XLA's count (tests/test_memory.py).
    """
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    jaxpr = jax.make_jaxpr(model.apply)(variables, image).jaxpr
    given = [Value(_bytes(v)) for v in jaxpr.invars]
    return given[-1].size + _peak(_results(jaxpr, given))


def _bytes(variable: Any) -> int:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    least = 4 if jnp.issubdtype(dtype, jnp.floating) else 1
    return math.prod(shape) * max(least, dtype.itemsize)


def _results(jaxpr: Any, given: list[Value]) -> list[Value]:
    """What a jaxpr makes of given values; calls are entered, of branches the CPU's or longest."""
    values = {v: Value(_bytes(v)) for v in jaxpr.constvars}
    values |= zip(jaxpr.invars, given, strict=True)

    def read(variables: list[Any]) -> list[Value]:
        return [Value(0) if isinstance(v, Literal) else values[v] for v in variables]

    for eqn in jaxpr.eqns:
        inner, reads = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr")), read(eqn.invars)
        if eqn.primitive.name == "cond":
            branches, reads = eqn.params["branches"], reads[1:]
            platforms = zip(branches, eqn.params.get("branches_platforms") or (), strict=False)
            cpu = [branch for branch, names in platforms if names is None or "cpu" in names]
            inner = cpu[0] if cpu else max(branches, key=lambda branch: len(branch.jaxpr.eqns))
        if inner is None or eqn.primitive.name in READ:
            results = _computed(eqn, reads)
        else:
            results = _results(getattr(inner, "jaxpr", inner), reads)
        values |= zip(eqn.outvars, results, strict=True)
    return read(jaxpr.outvars)


def _computed(eqn: Any, reads: list[Value]) -> list[Value]:
    """The results of one equation."""
    name, sizes = eqn.primitive.name, [_bytes(v) for v in eqn.outvars]
    if name in SAME and sizes == [value.size for value in reads]:
        return reads
    if name not in READ:
        sources = set().union(*(value.sources for value in reads))
        results = [Value(size, sources, fused=True) for size in sizes]
        return [Value(v.size, v.written()) for v in results] if name in WRITTEN else results
    orders = [None] * (len(reads) + 1)
    if name == "conv_general_dilated":
        pairs = zip(eqn.params["dimension_numbers"], CHANNELS_LAST, strict=True)
        orders = [None if order == last else order for order, last in pairs]
    sources = set().union(*map(Value.written, reads, orders[:-1]))
    moved = orders[-1] is not None
    return [Value(size, [Operation(size, sources)], fused=moved) for size in sizes]


def _peak(results: list[Value]) -> int:
    """Most bytes at a time until every result is there and put where its old value was."""
    stack = [Operation(0, value.sources) for value in results]
    needed = set(stack)  # what no result needs is never run
    while stack:
        new = stack.pop().reads - needed
        needed |= new
        stack += new
    order = sorted(needed, key=lambda operation: operation.place)
    last = {read: operation for operation in order for read in operation.reads}
    freed = dict.fromkeys(order, 0)  # bytes read for the last time
    for read, operation in last.items():
        freed[operation] += read.size
    return max(accumulate(change for op in order for change in (op.size, -freed[op])))
