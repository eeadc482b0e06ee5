"""Several hosts, as processes of this machine (nothing else was tried): one state, one end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hosted import ROOT, end, free_port, said, start
from tests.storm import _digest, _last, _lines, _saved

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("heard")]
LONG = 1500
"""Seconds, of a machine that has much else to do."""
SHORT = ("--steps", 24, "--save-every", 4, "--evaluate-every", 12)


def all_said(folder):
    return "\n".join(f"host {i}: {said(folder, i)[-1500:]}" for i in range(2))


def trained(folder, *flags, kind="plain", **how):
    """Starts a run of `tests.stormed` in folder/run."""
    flags = ("--batch", 8, "--workdir", folder / "run", *flags)
    return start(("tests.stormed", kind, *flags), folder, **how)


def reached(processes, folder, step):
    """Waits until the run has said that step."""
    until = time.monotonic() + LONG
    while _last(folder / "run") < step:
        assert all(process.poll() is None for process in processes), all_said(folder)
        assert time.monotonic() < until, all_said(folder)
        time.sleep(0.05)


def test_sample_hosts_agree_or_all_end(tmp_path):
    assert end(start(("tests.hosted", tmp_path, "agree"), tmp_path, devices=1), LONG) == [0, 0], (
        all_said(tmp_path)
    )
    first, second = (json.loads((tmp_path / f"{host}.json").read_text()) for host in (0, 1))
    assert first["exchanged"] == second["exchanged"] == [[[], np.pi], [[2**40], np.pi + 1]]
    assert first["shares"] == [[], [0], [0, 2, 4]] and second["shares"] == [[], [], [1, 3]]
    for name in ("same", "root", "shared", "locked"):
        assert first[name] == second[name] == "", name
    for name, word in {
        "together": "nothing good",
        "seed": "--seed differ",
        "fewer": "3} examples, {'train': 4} on",
        "apart": "that they share",
    }.items():
        assert word in second[name] and first[name] == f"host 1: {second[name]}", name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process of eight devices gives: jit over 8 and over 1, pmap."""
    folder = tmp_path_factory.mktemp("alone")
    jobs = [f"{kind}/{how}" for kind in ("plain", "detect") for how in ("jit", "jit/1", "pmap")]
    processes = start(("tests.hosted", folder, *jobs), folder, hosts=1, devices=8)
    assert end(processes, LONG) == [0], said(folder, 0)[-2000:]
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes of four devices give."""
    folder = tmp_path_factory.mktemp("two")
    jobs = [f"{kind}/{how}" for kind in ("plain", "detect") for how in ("jit", "pmap")]
    assert end(start(("tests.hosted", folder, *jobs), folder), LONG) == [0, 0], all_said(folder)
    return folder


def furthest(one, other):
    """The largest difference of state and losses; sums and scores are equal."""
    one, other = (dict(np.load(path)) for path in (one, other))
    assert one.keys() == other.keys() and any("batch_stats" in name for name in one)
    apart = 0.0
    for name, x in one.items():
        if name.startswith("['sums']"):
            np.testing.assert_array_equal(x, other[name], err_msg=name)
        elif name.startswith("['scores']"):
            np.testing.assert_allclose(x, other[name], rtol=0, atol=1e-5, err_msg=name)
        else:
            apart = max(apart, float(np.abs(x.astype(float) - other[name].astype(float)).max()))
    return apart


@pytest.mark.parametrize("kind", ["plain", "detect"])
@pytest.mark.parametrize("how", ["jit", "pmap", "two-jit", "two-pmap"])
def test_devices_drivers_and_hosts_give_one_state(how, kind, alone, two):
    folder = two if how.startswith("two-") else alone
    path = folder / f"{kind}-{how.removeprefix('two-')}.npz"
    apart = furthest(alone / f"{kind}-jit-1.npz", path)
    print(f"{kind} {how}: {apart:.1e}")
    assert apart < 1e-5


def test_a_run_of_eight_devices_goes_on_with_fewer(tmp_path):
    one = {"hosts": 1}
    assert end(trained(tmp_path, "--steps", 8, "--save-every", 4, devices=8, **one), LONG) == [0]
    wanted = _lines(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    for devices in (1, 2, 4):
        other = tmp_path / str(devices)
        shutil.copytree(tmp_path / "run", other / "run")
        processes = trained(other, "--steps", 8, "--save-every", 4, devices=devices, **one)
        assert end(processes, LONG) == [0], said(other, 0)[-2000:]
        text = said(other, 0)  # the digests of the restored arrays are those of the saved ones
        assert "from step 4" in text and "cannot be read" not in text
        found = _lines(other / "run")
        assert [line["step"] for line in found] == [line["step"] for line in wanted]
        for line, same in zip(found, wanted, strict=True):
            if "loss" in line:
                assert line["loss"] == pytest.approx(same["loss"], abs=1e-5)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of two hosts that nobody disturbs."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert end(trained(folder, *SHORT, devices=1), LONG) == [0, 0], all_said(folder)
    return folder / "run"


def assert_ended_as(run, unbroken):
    assert _lines(run) == _lines(unbroken)
    assert _digest(run) == _digest(unbroken)


def test_sample_one_host_told_to_end_ends_both(tmp_path):
    processes = trained(tmp_path, "--steps", 5000, "--save-every", 1000, devices=1)
    reached(processes, tmp_path, 3)
    processes[1].send_signal(signal.SIGTERM)
    assert end(processes, LONG) == [143, 143], all_said(tmp_path)
    step = _saved(tmp_path / "run")
    assert step >= 3 and all(f"step {step} is saved" in said(tmp_path, i) for i in range(2))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("host", [0, 1])
def test_both_go_on_from_there(sent, host, tmp_path, unbroken):
    processes = trained(tmp_path, *SHORT, devices=1)
    reached(processes, tmp_path, 3)
    processes[host].send_signal(sent)
    assert end(processes, LONG) == [143, 143], all_said(tmp_path)
    step = _saved(tmp_path / "run")
    assert 3 <= step < 24 and all(f"step {step} is saved" in said(tmp_path, i) for i in range(2))
    assert end(trained(tmp_path, *SHORT, devices=1), LONG) == [0, 0], all_said(tmp_path)
    assert_ended_as(tmp_path / "run", unbroken)


@pytest.mark.parametrize("host", [0, 1])
def test_a_host_that_dies_takes_the_other_with_it(host, tmp_path, unbroken):
    heartbeat = 15
    processes = trained(tmp_path, *SHORT, devices=1, ENCDEC_HEARTBEAT=str(heartbeat))
    reached(processes, tmp_path, 10)
    processes[host].kill()
    began = time.monotonic()
    code = end([processes[1 - host]], LONG)[0]
    seconds = time.monotonic() - began
    print(f"host {host} killed: the other ended after {seconds:.1f} s with {code}")
    assert code != 0 and seconds < 2 * heartbeat, all_said(tmp_path)
    assert _saved(tmp_path / "run") < 24
    assert end(trained(tmp_path, *SHORT, devices=1), LONG) == [0, 0], all_said(tmp_path)
    assert_ended_as(tmp_path / "run", unbroken)


def test_the_script_starts_and_ends_several_hosts(tmp_path):
    run = tmp_path / "run"
    flags = ("-m", "tests.stormed", "plain", "--steps", "5000", "--batch", "8", "--workdir", run)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of the script's python
    environment = os.environ | {"PORT": str(free_port()), "DEVICES": "1", "PATH": path}
    script = [str(ROOT / "experiments" / "multihost.sh"), "2", *map(str, flags)]
    with (tmp_path / "said0").open("w") as text:
        process = subprocess.Popen(script, cwd=ROOT, env=environment, stdout=text, stderr=text)
    reached([process], tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    assert end([process], LONG) == [143], said(tmp_path, 0)[-2000:]
    assert said(tmp_path, 0).count(f"step {_saved(run)} is saved") == 2


def test_a_run_in_use_is_refused_on_all_hosts(tmp_path):
    processes = trained(tmp_path, "--steps", 5000, devices=1)
    reached(processes, tmp_path, 1)
    others = trained(tmp_path / "second", "--steps", 5000, "--workdir", tmp_path / "run", devices=1)
    assert end(others, LONG) == [2, 2], all_said(tmp_path / "second")
    for i in range(2):
        assert "in use by another process" in said(tmp_path / "second", i)
    processes[0].send_signal(signal.SIGTERM)
    assert end(processes, LONG) == [143, 143], all_said(tmp_path)


def predicted(folder, photos, run, **how):
    """Starts `encdec predict` of the photos to folder/out."""
    flags = ("predict", photos, "--run", run, "--out", folder / "out")
    return start(("tests.hosted", *flags), folder, devices=1, **how)


def test_sample_two_hosts_share_a_list_of_images(tmp_path, detecting):
    rng = np.random.default_rng(0)
    for i in range(7):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (33, 40, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "bad.png").write_text("no image")
    one, two = tmp_path / "one", tmp_path / "two"
    processes = predicted(one, tmp_path / "photos", detecting, hosts=1)
    assert end(processes, LONG) == [2], said(one, 0)
    for times in (1, 2):
        assert end(predicted(two, tmp_path / "photos", detecting), LONG) == [2, 2], all_said(two)
        made = [path for i in range(2) for path in said(two, i).split() if "overlay.png" in path]
        assert len(set(made)) == len(made) == (7 if times == 1 else 0)
        for i in range(2):
            assert "bad.png: cannot be read" in said(two, i)
    names = [{path.name for path in (folder / "out").rglob("*.*")} for folder in (one, two)]
    assert names[0] == names[1]
    for name in ("detections.json", "masks.json"):
        texts = [(folder / "out" / name).read_text() for folder in (one, two)]
        assert texts[0] == texts[1]
