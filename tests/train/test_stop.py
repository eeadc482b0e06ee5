"""Signals: the step is saved, the exit code says which came, and the run goes on bit for bit."""

import os
import signal

import jax
import pytest

from encdec.train import loop
from encdec.train.loop import run
from encdec.train.stop import Stop, Stopped
from tests.train.test_loop import bits, numbers, state_of

pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def signalled(monkeypatch):
    """Sends this process signals when it has read so many batches."""

    def at(after, *sent):
        read = loop.train_batches

        def reading(*args, **settings):
            for number, batch in enumerate(read(*args, **settings)):
                if number == after:
                    for each in sent:
                        os.kill(os.getpid(), each)
                yield batch

        monkeypatch.setattr(loop, "train_batches", reading)

    return at


@pytest.mark.parametrize("sent, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_step_is_saved_and_the_run_goes_on(
    sent, code, tiny, finished, tmp_path, monkeypatch, signalled
):
    experiment, handler = tiny(tensorboard=True), signal.getsignal(sent)
    with monkeypatch.context():
        signalled(5, sent)
        with pytest.raises(Stopped, match=f"{sent.name}: step 6 is saved; the same") as stopped:
            run(experiment, tmp_path)
    monkeypatch.undo()
    assert stopped.value.code == code and signal.getsignal(sent) == handler
    assert int(state_of(experiment, tmp_path).step) == 6
    run(experiment, tmp_path)
    assert numbers(tmp_path) == numbers(finished)
    assert bits(state_of(experiment, tmp_path)) == bits(state_of(experiment, finished))


def test_an_evaluation_is_cut_short_and_made_up_for(tiny, tmp_path, monkeypatch):
    experiment = tiny(steps=4, evaluate_every=2)
    run(experiment, tmp_path / "unbroken")
    evaluate = loop.evaluate

    def killed(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args)

    monkeypatch.setattr(loop, "evaluate", killed)
    with pytest.raises(Stopped, match="step 2 is saved"):
        run(experiment, tmp_path / "broken")
    monkeypatch.undo()
    assert [line["step"] for line in numbers(tmp_path / "broken")] == [1, 2]
    run(experiment, tmp_path / "broken")
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "unbroken")


def test_a_second_interrupt_ends_at_once(tiny, tmp_path, signalled):
    signalled(2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_of_several_hosts_an_interrupt_is_passed_on(monkeypatch):
    told, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))  # as JAX has its own
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert told == [signal.SIGTERM] and stop.number == 0
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("sent, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_line_ends_with_the_signals_code(sent, code, tiny, tmp_path, call, signalled):
    signalled(1, sent)
    args = ("--workdir", tmp_path / "run")
    found, _, err = call(*args, experiment=tiny())
    assert found == code and "Traceback" not in err
    assert f"{sent.name}: step 2 is saved; the same command goes on from it" in err
