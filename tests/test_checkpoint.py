"""What is kept, what is restored, and what happens to a damaged checkpoint."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import parallel
from encdec.checkpoint import Checkpoints
from encdec.errors import InputError
from encdec.train.state import State

NAN = float("nan")

# A read that fails leaves coroutines of orbax behind, of which the garbage collector complains.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def swept():
    """Nothing is left for a later test to be blamed for."""
    yield
    gc.collect()


def state_at(step, width=3):
    params = {"head": {"kernel": jnp.full((2, width), step / 3), "bias": jnp.zeros(2)}}
    stats = {"batch_stats": {"mean": jnp.full(2, -step / 7)}}
    return parallel.replicate(State(jnp.asarray(step, jnp.int32), params, stats, (), None))


def shapes(width=3):
    return parallel.replicated(jax.eval_shape(lambda: state_at(0, width)))


@pytest.fixture
def saved(tmp_path):
    """Saves a checkpoint for each score, under steps 1, 2, …; returns the folder."""

    def make(*values, keep=2):
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=keep)
        for step, value in enumerate(values, 1):
            checkpoints.save(state_at(step), None if value is None else {"mean_iou": value})
        checkpoints.close()
        return tmp_path / "checkpoints"

    return make


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@pytest.mark.parametrize(
    "values, kept",
    [
        ((0.1, 0.2, 0.3, 0.4), [3, 4]),
        ((0.4, 0.3, 0.2, 0.1), [1, 3, 4]),
        ((0.1, 0.4, 0.3, 0.2), [2, 3, 4]),
        ((0.1, None, None, None), [1, 3, 4]),
        ((0.2, NAN, NAN, NAN), [1, 3, 4]),
        ((None, None, None, None), [3, 4]),
    ],
    ids=["rising", "falling", "peak", "scored once", "not a number", "unscored"],
)
def test_the_newest_two_and_the_best_are_kept(values, kept, saved):
    assert steps(saved(*values)) == kept


def test_one_newest_is_enough(saved):
    assert steps(saved(0.1, 0.9, 0.2, 0.3, keep=1)) == [2, 4]


def test_a_state_comes_back_bit_for_bit_on_every_device(saved):
    folder = saved(0.1, 0.2)
    checkpoints = Checkpoints(folder)
    found, wanted = checkpoints.restore(shapes()), state_at(2)
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(shapes()) is None
    checkpoints.close()


def cut(folder):
    for path in (p for p in folder.rglob("d/*") if p.is_file()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(folder):
    for name in ("_METADATA", "manifest.ocdbt"):
        for path in folder.rglob(name):
            path.unlink()


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, remove, empty])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, saved, capfd):
    folder = saved(0.1, 0.2)
    damage(folder / "2")
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 1
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith(f"checkpoint {folder / '2'} cannot be read: ")
    checkpoints.save(state_at(2), {"mean_iou": 0.2})  # the step is made again
    checkpoints.close()
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 2
    checkpoints.close()


def test_when_all_are_damaged_one_line_says_so(saved):
    folder = saved(0.1, 0.2)
    empty(folder)
    checkpoints = Checkpoints(folder)
    with pytest.raises(InputError, match="no checkpoint under .* another --workdir") as error:
        checkpoints.restore(shapes())
    checkpoints.close()
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_shapes_is_refused(saved):
    checkpoints = Checkpoints(saved(0.1))
    with pytest.raises(InputError, match="can be read"):
        checkpoints.restore(shapes(width=4))
    checkpoints.close()


def test_read_only_leaves_what_a_training_is_about_to_save(saved):
    folder = saved(0.1)
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(folder, read_only=True)
    assert int(checkpoints.restore(shapes()).step) == 1
    checkpoints.close()
    assert (folder / "7.orbax-checkpoint-tmp").is_dir()
    checkpoints = Checkpoints(folder)  # a training that goes on cleans up
    checkpoints.save(state_at(2))
    checkpoints.close()
    assert not (folder / "7.orbax-checkpoint-tmp").exists()


def test_read_only_makes_no_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none", read_only=True)
    assert checkpoints.restore(shapes()) is None
    checkpoints.close()
    assert not (tmp_path / "none").exists()
