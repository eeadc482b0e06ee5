import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.errors import InputError
from encdec.turns import averaged, versions

RNG = np.random.default_rng(0)
PLAIN = {
    "as it is": lambda x: x,
    "lr": lambda x: x[:, ::-1],
    "ud": lambda x: x[::-1],
    "both": lambda x: x[::-1, ::-1],
    "quarter": lambda x: np.rot90(x),
    "three": lambda x: np.rot90(x, 3),
    "transposed": lambda x: x.swapaxes(0, 1),
    "across": lambda x: np.rot90(x)[:, ::-1],
}
GENERATED = {
    (): ["as it is"],
    ("flip",): ["as it is", "lr"],
    ("flip_rows",): ["as it is", "ud"],
    ("flip", "flip_rows"): ["as it is", "lr", "ud", "both"],
    ("rotate90",): ["as it is", "quarter", "both", "three"],
    ("flip", "rotate90"): list(PLAIN),
    ("rotate90", "flip_rows"): list(PLAIN),
    ("flip", "flip_rows", "rotate90"): list(PLAIN),
}


@pytest.mark.parametrize("turns", GENERATED)
def test_turns_generate_every_version_once(turns):
    picture, seen = jnp.asarray(RNG.normal(size=(3, 3, 1)), jnp.float32), []

    def outputs(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return {"logits": x}

    averaged(outputs, picture, versions(turns))
    jax.effects_barrier()
    found = {x.tobytes() for x in seen}
    assert len(seen) == len(found) == len(GENERATED[turns])
    wanted = [np.ascontiguousarray(PLAIN[name](np.asarray(picture))) for name in GENERATED[turns]]
    assert found == {x.tobytes() for x in wanted}


@pytest.mark.parametrize("turns", GENERATED)
def test_outputs_are_turned_back(turns):
    picture = jnp.asarray(RNG.normal(size=(4, 6, 2)), jnp.float32)
    found = averaged(lambda x: {"a": x, "b": 2 * x[1:-1, 1:-1]}, picture, versions(turns))
    np.testing.assert_allclose(found["a"], picture, atol=1e-6)
    np.testing.assert_allclose(found["b"], 2 * picture[1:-1, 1:-1], atol=1e-6)


def test_the_mean_of_what_depends_on_the_turn():
    ramp = jnp.broadcast_to(jnp.arange(3.0)[:, None, None], (3, 3, 1))  # the outputs' own rows
    found = averaged(lambda x: {"a": ramp}, jnp.zeros((3, 3, 1)), versions(("flip_rows",)))
    np.testing.assert_allclose(found["a"], jnp.ones((3, 3, 1)))


def test_an_unknown_turn_is_named():
    with pytest.raises(InputError, match="flip, flip_rows, rotate90; got spin"):
        versions(("flip", "spin"))
