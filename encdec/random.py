"""The generator behind initial parameters: a hash of a counter.

XLA compiles threefry anew for every shape of parameter, which takes longer than the training step
does. Two rounds of a 32-bit hash are a few integer operations, and the same bits on every backend
and number of devices. `python -m benchmarks cold` times a start with either.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl
from jaxtyping import Array, UInt32

Words = UInt32[Array, "*n"]


def _mixed(x: Words) -> Words:
    """MurmurHash3's finaliser: every bit of the result depends on every bit of x."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def _hashed(key: UInt32[Array, "2"], counter: Words) -> Words:
    first, second = (key[i].reshape((1,) * counter.ndim) for i in (0, 1))
    return _mixed(_mixed(counter ^ first) + second)


def _seed(seed: Array) -> UInt32[Array, "2"]:
    return _mixed(seed.astype(jnp.uint32) + jnp.array([1, 2], jnp.uint32))


def _fold_in(key: UInt32[Array, "2"], data: UInt32[Array, ""]) -> UInt32[Array, "2"]:
    return _hashed(key, _mixed(data + jnp.array([3, 4], jnp.uint32)))


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*n 2"]:
    return _hashed(key, _counter((*shape, 2)) + jnp.uint32(0x9E3779B9))


def _bits(key: UInt32[Array, "2"], bit_width: int, shape: tuple[int, ...]) -> Array:
    words = _hashed(key, _counter(shape))
    if bit_width > 32:
        raise NotImplementedError(f"random numbers of up to 32 bits are drawn; got {bit_width}")
    return words.astype(f"uint{bit_width}")


def _counter(shape: tuple[int, ...]) -> Words:
    count = 1
    for size in shape:
        count *= size
    return lax.iota(jnp.uint32, count).reshape(shape)


HASH = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="encdec_hash",
    tag="hash",
)


def initial_key(seed: int) -> jax.Array:
    """A key to initialise a model with; not for augmentation or dropout."""
    return jax.random.key(seed, impl=HASH)
