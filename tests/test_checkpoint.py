"""What is kept, what is restored, and what happens to a damaged checkpoint."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from encdec import hosts, parallel
from encdec.checkpoint import Checkpoints
from encdec.errors import CheckpointError, InputError
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
    return parallel.replicate(State(jnp.asarray(step, jnp.int32), params, stats, ()))


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


@pytest.mark.parametrize("devices", [1, 2])
def test_so_it_does_on_fewer_devices(devices, saved, monkeypatch, capfd):
    folder, wanted = saved(0.1), state_at(1)
    few = Mesh(np.array(jax.devices()[:devices]), (parallel.AXIS,))
    monkeypatch.setattr(parallel, "mesh", lambda here=False: few)
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(shapes())
    checkpoints.close()
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert len(x.devices()) == devices and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert "cannot be read" not in capfd.readouterr().err


def test_what_another_host_cannot_read_none_takes(saved, monkeypatch, capfd):
    told = {2: ["", "its disk is gone"], 1: ["", ""]}
    monkeypatch.setattr(hosts, "exchange", lambda said: told.pop(max(told)))
    checkpoints = Checkpoints(saved(0.1, 0.2))
    assert int(checkpoints.restore(shapes()).step) == 1
    checkpoints.close()
    assert "2 cannot be read: its disk is gone" in capfd.readouterr().err


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(shapes()) is None
    checkpoints.close()


def largest(folder):
    return max((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, count=8):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + count] = bytes(255 - byte for byte in data[middle : middle + count])
    path.write_bytes(data)


def other_numbers(folder):
    """Files that orbax restores as if they were right, as it does flipped bytes of large arrays."""
    other = folder.parent.parent / "other"
    checkpoints = Checkpoints(other)
    params = {"head": {"kernel": jnp.full((2, 3), 0.7), "bias": jnp.zeros(2)}}
    checkpoints.save(parallel.replicate(state_at(int(folder.name)).replace(params=params)))
    checkpoints.close()
    shutil.rmtree(folder / "state")
    shutil.copytree(other / folder.name / "state", folder / "state")


def remove(folder):
    for name in ("_METADATA", "manifest.ocdbt"):
        for path in folder.rglob(name):
            path.unlink()


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def digest_of_another(folder):
    path = next(path for path in folder.rglob("*") if b"params/head/bias" in bytes_of(path))
    path.write_bytes(bytes_of(path).replace(b'"params/head/bias": "', b'"params/head/bias": "0'))


def bytes_of(path):
    return path.read_bytes() if path.is_file() else b""


DAMAGES = {
    "the largest file cut to half": lambda folder: cut(largest(folder)),
    "eight bytes of it flipped": lambda folder: flip(largest(folder)),
    "other numbers": other_numbers,
    "the manifest flipped": lambda folder: [flip(p) for p in folder.rglob("manifest.ocdbt")],
    "the metadata cut": lambda folder: cut(folder / "state" / "_METADATA"),
    "metadata and manifest removed": remove,
    "the state removed": lambda folder: shutil.rmtree(folder / "state"),
    "an empty folder": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "all files empty": empty,
    "the digests removed": lambda folder: shutil.rmtree(folder / "digests"),
    "a digest changed": digest_of_another,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, saved, capfd):
    folder = saved(0.1, 0.2)
    damage(folder / "2")
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot be read" in line]
    assert len(said) == 1 and said[0].startswith(f"checkpoint {folder / '2'} cannot be read: ")
    checkpoints.save(state_at(2), {"mean_iou": 0.2})  # the step is made again
    checkpoints.close()
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 2
    checkpoints.close()


def test_the_array_that_is_not_what_was_saved_is_named(saved):
    folder = saved(0.1)
    other_numbers(folder / "1")
    checkpoints = Checkpoints(folder)
    with pytest.raises(CheckpointError, match=r"params/head/kernel is not what was saved \(1 of"):
        checkpoints.restore(shapes())
    checkpoints.close()
    assert steps(folder) == [1]  # nothing is deleted


@pytest.mark.parametrize("name", ["commit_success.txt", "_CHECKPOINT_METADATA"])
def test_what_holds_no_number_is_not_missed(name, saved):
    folder = saved(0.1)
    for path in folder.rglob(name):
        path.unlink()
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 1
    checkpoints.close()


def test_what_is_no_checkpoint_is_passed_over(saved):
    folder = saved(0.1)
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    (folder / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(shapes()).step) == 1
    checkpoints.close()
    assert (folder / "notes.txt").read_text() == "mine"


def test_when_all_are_damaged_one_line_says_so(saved):
    folder = saved(0.1, 0.2)
    empty(folder)
    checkpoints = Checkpoints(folder)
    with pytest.raises(CheckpointError, match="no checkpoint under .* another --workdir") as error:
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
