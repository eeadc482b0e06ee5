"""Kills and long runs; the whole of them by `python -m tests.storm` and `python -m tests.soak`."""

import json
import os
import subprocess
import sys

import pytest

from tests.storm import ROOT, Storm, storm

KINDS = ["plain", "all", "detect"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=["plain-sample", *KINDS[1:]])
def test_a_killed_run_ends_as_an_unbroken_one(kind, tmp_path):
    counted = storm(Storm(kills=3, kind=kind, steps=120), tmp_path)
    assert counted["kills"] == 3 and counted["lines"] >= 120


@pytest.mark.slow
def test_a_long_run_grows_no_memory_and_leaves_nothing_behind_sample(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--steps", "400"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(found.stdout.splitlines()[-1])
    assert said["steps"] == 400 and said["growth"] < 0.05 and not said["left"]
