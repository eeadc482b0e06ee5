"""A run folder that cannot be written, vanishes, or belongs to another process."""

import resource
import shutil

import pytest

from encdec.errors import InputError
from encdec.train import loop
from encdec.train.folder import locked
from encdec.train.loop import run
from tests.train.test_loop import bits, numbers, state_of


@pytest.fixture
def at(monkeypatch):
    """Does something when so many batches have been read."""

    def does(after, action):
        read = loop.train_batches

        def reading(*args, **settings):
            for number, batch in enumerate(read(*args, **settings)):
                if number == after:
                    action()
                yield batch

        monkeypatch.setattr(loop, "train_batches", reading)

    return does


@pytest.fixture
def full():
    """From the call on, until the end, files may not grow beyond some bytes: a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_ends_the_run_and_the_same_call_goes_on(
    tiny, finished, tmp_path, monkeypatch, at, full
):
    with monkeypatch.context():
        at(7, full)
        with pytest.raises(InputError, match="could not be written.*goes on from") as error:
            run(tiny(), tmp_path)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    run(tiny(), tmp_path)
    assert bits(state_of(tiny(), tmp_path)) == bits(state_of(tiny(), finished))


def test_a_folder_that_vanishes_ends_the_run(tiny, tmp_path, at):
    def vanish():  # a save in the background may write and remove beside it
        while (tmp_path / "run").exists():
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    at(5, vanish)
    with pytest.raises(InputError, match="could not be written"):
        run(tiny(), tmp_path / "run")


def test_a_folder_of_another_process_is_refused(tiny, finished):
    before, saving = numbers(finished), finished / "checkpoints" / "99.orbax-checkpoint-tmp"
    began = (finished / "environment.json").read_text()
    saving.mkdir()
    with locked(finished), pytest.raises(InputError, match="is in use by another process"):
        run(tiny(tensorboard=True), finished)
    assert numbers(finished) == before and saving.is_dir()
    assert (finished / "environment.json").read_text() == began
    saving.rmdir()


def test_a_folder_that_cannot_be_made_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        run(tiny(), tmp_path / "file" / "run")
