"""encdec doctor: what it finds, and that each thing that is wrong is said with what to do."""

import pytest

from encdec import doctor


@pytest.fixture
def problems(monkeypatch, tmp_path, call):
    """Calls it without a speed test; returns (code, the lines, those of problems)."""
    monkeypatch.setenv("ENCDEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENCDEC_DATA", raising=False)

    def called(*args):
        code, out, err = call("doctor", *(args or ("--no-speed",)))
        assert "Traceback" not in err
        return code, out, [line for line in out.splitlines() if line.startswith("problem ")]

    return called


def test_a_sound_machine_has_no_problem(problems, tmp_path):
    code, out, wrong = problems()
    assert (code, wrong, out.splitlines()[-1]) == (0, [], "0 problem(s)")
    for word in ("python", "versions", "devices   4 x cpu", "programs", f"{tmp_path / 'cache'}, 0"):
        assert f"\n{word}" in f"\n{out}" or word in out
    assert "ENCDEC_DATA is not set" in out


def test_the_speed_is_measured_unless_not_wanted(problems, monkeypatch):
    monkeypatch.setattr(doctor, "training_speed", lambda: (3e9, 1.5))
    assert "\nspeed     3.0 GFLOP/s" in problems("--speed")[1]
    assert "\nspeed" not in problems()[1]


def test_a_package_that_is_missing_or_too_old_is_a_problem(problems, monkeypatch):
    found = {"jax": "0.1", "flax": "0.12.8"}
    wanted = ["jax<0.13,>=0.10", "flax>=0.12", "tyro>=1.0", "torch>=2; extra == 'bench'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "installed", found.get)
    code, out, wrong = problems()
    assert code == 2 and len(wrong) == 2 and out.endswith("2 problem(s)\n")
    assert "jax<0.13,>=0.10 is wanted, 0.1 is there: pip install -e ." in wrong[0]
    assert "tyro>=1.0 is wanted, nothing is there" in wrong[1]
    assert 'extra     without torch: pip install -e ".[bench]"' in out  # no problem


def test_an_accelerator_that_jax_does_not_use_is_a_problem(problems, monkeypatch, tmp_path):
    (tmp_path / "device").touch()
    monkeypatch.setattr(doctor, "ACCELERATORS", {str(tmp_path / "device"): ("a GPU", "cuda13")})
    assert problems()[0] == 0  # JAX_PLATFORMS=cpu says that it is not to
    monkeypatch.setenv("JAX_PLATFORMS", "")
    code, _, wrong = problems()
    assert code == 2 and 'pip install -U "jax[cuda13]"' in wrong[0]


def test_a_jax_without_devices_is_a_problem(problems, monkeypatch):
    def none():
        raise RuntimeError("no such platform")

    monkeypatch.setattr(doctor.jax, "devices", none)
    code, _, wrong = problems()
    assert code == 2 and "no such platform" in wrong[0] and "JAX_PLATFORMS" in wrong[0]


def test_a_cache_that_cannot_be_is_a_problem(problems, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ENCDEC_CACHE", str(tmp_path / "file" / "cache"))
    code, _, wrong = problems()
    assert code == 2 and "set ENCDEC_CACHE" in wrong[0]
    monkeypatch.setenv("ENCDEC_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "LEAST_FREE", 2**80)
    assert "make room" in problems()[2][0]


def test_the_cache_is_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(2**20))
    assert doctor.size(tmp_path) == 1


def test_data_sets_are_found_and_broken_ones_are_problems(problems, monkeypatch, tmp_path):
    for folder in ("val", "valannot"):
        (tmp_path / "data" / "CamVid" / folder).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            (tmp_path / "data" / "CamVid" / folder / name).touch()
    monkeypatch.setenv("ENCDEC_DATA", str(tmp_path / "data"))
    code, out, wrong = problems()
    assert code == 0 and "camvid (2)" in out and "voc" not in out
    (tmp_path / "data" / "VOC2012").mkdir()
    code, _, wrong = problems()
    assert code == 2 and any("problem   voc: VOC wants JPEGImages/" in line for line in wrong)
    monkeypatch.setenv("ENCDEC_DATA", str(tmp_path / "none"))
    code, _, wrong = problems()
    assert code == 2 and "No such file or directory; set it" in wrong[0]
