"""The time of a step, estimated."""

import itertools
from types import SimpleNamespace

import pytest

import encdec
from encdec import speed
from encdec.encoders.plain import Plain
from encdec.summary import flops

TINY = encdec.EncoderDecoder(Plain((2, 4)), encdec.FCN((1, 2), 2), encdec.Pixel(2, scores=True))


def test_a_step_has_three_times_the_operations_of_a_forward_pass():
    taken = speed.step_seconds(TINY, (32, 32), 4, 1e6)
    assert taken == pytest.approx(3 * 4 * flops(TINY, (32, 32)) / 1e6)


def test_the_fastest_of_three_calls_or_more_is_taken_and_the_first_left_out(monkeypatch):
    """Compiling takes 9 seconds by this clock, steps 5, 2 and 4."""
    ticks = iter(itertools.accumulate((0.0, 9, 0, 5, 0, 2, 0, 4)))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert speed.first_and_fastest(lambda: None, 1.0) == (9, 2)


def test_calls_go_on_for_the_seconds_that_are_wanted(monkeypatch):
    ticks = iter(itertools.accumulate((0.0, 9, *(0, 1) * 9)))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert speed.first_and_fastest(lambda: None, 7.5) == (9, 1)
    assert len(list(ticks)) == 2  # eight calls after the first


@pytest.mark.slow
def test_the_speed_sample_is_measured_on_this_machine():
    found, compiled = speed.training_speed(0.1)
    assert found > 1e6 and compiled > 0


def test_the_line_on_a_step_says_what_it_is_estimated_from(monkeypatch):
    monkeypatch.setattr(speed, "training_speed", lambda: (2e6, 1.0))
    said, work = speed.said_step(TINY, (32, 32), 8, 1000), 3 * 8 * flops(TINY, (32, 32))
    assert said.startswith("estimated from 0.0 GFLOP/s, measured now")
    assert f"{work / 1e9:,.1f} GFLOPs a step, {work / 4 / 2e6:,.2g} s on 4 x cpu" in said
