"""Exports run without encdec, and give what it gives."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.data.fit import shrunk as reduced
from encdec.errors import InputError
from encdec.export import ABOUT
from encdec.plain import plain
from encdec.program import Program, shrunk
from tests.exporting import CASES, MODELS, drawn

SAMPLE = ("unet", "tiled")
ROOT = Path(encdec.__file__).parents[1]
BARE = """
import sys, pathlib, json, jax, numpy as np
root = pathlib.Path(sys.argv[1])
said = {}
for name in sys.argv[2:]:
    about = json.loads((root / name / "export.json").read_text())
    program = jax.export.deserialize((root / name / about["file"]).read_bytes())
    wanted, equal = np.load(root / f"{name}.npz", allow_pickle=False), []
    for i in range(2):
        found = program.call(wanted[f"images{i}"])
        for key in ("labels", "probabilities"):
            equal.append(bool(np.array_equal(found[key], wanted[f"{key}{i}"])))
    said[name] = [equal, program.platforms]
assert not any(name.split(".")[0] in ("encdec", "flax") for name in sys.modules)
print(json.dumps(said))
"""
"""Without PYTHONPATH and in no folder of ours."""

ONNX = """
import sys, pathlib, onnxruntime, numpy as np
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = session.run(None, {"images": np.load(sys.argv[2])})
assert not any(name.split(".")[0] in ("encdec", "jax") for name in sys.modules)
np.savez(sys.argv[3], **{o.name: x for o, x in zip(session.get_outputs(), found)})
"""


def process(*args: object, cwd: Path, own: bool = False) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "XLA_FLAGS") if name in os.environ}
    kept |= {"JAX_PLATFORMS": "cpu"} | ({"PYTHONPATH": str(ROOT)} if own else {})
    options = [] if own else ["-I"]
    done = subprocess.run(
        [sys.executable, *options, *map(str, args)],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    process(ROOT / "tests" / "exporting.py", folder, *SAMPLE, cwd=folder, own=True)
    return folder


def check_bare(folder, names):
    said = json.loads(process("-c", BARE, folder, *names, cwd=folder))
    assert said == {name: [[True] * 4, ["cpu", "cuda", "tpu"]] for name in names}


def test_without_encdec_a_sample_gives_its_bits_for_any_batch_and_size_whole_and_tiled(exports):
    check_bare(exports, SAMPLE)


@pytest.mark.slow
def test_without_encdec_every_program_gives_its_bits(tmp_path):
    process(ROOT / "tests" / "exporting.py", tmp_path, *CASES, cwd=tmp_path, own=True)
    check_bare(tmp_path, CASES)


def test_the_folder_says_what_it_takes_and_gives(exports):
    about = json.loads((exports / "tiled" / ABOUT).read_text())
    assert about["classes"] == ["a", "b", "c"] and about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["input"]["images"]["shape"] == ["b", "h", "w", 3]
    assert about["tile"] == 32
    assert about["outputs"]["labels"] == {"dtype": "int32", "shape": ["b", "h", "w"]}
    assert "multiples of 32 pixels" in about["inside"]
    assert "program.stablehlo" in (exports / "tiled" / "README.md").read_text()


def test_open_export_runs_it(exports):
    wanted = np.load(exports / "unet.npz")
    found = encdec.open_export(exports / "unet")(wanted["images0"])
    np.testing.assert_array_equal(found["labels"], wanted["labels0"])


def cut(folder):
    path = folder / "program.stablehlo"
    path.write_bytes(path.read_bytes()[:-100])


def foreign(folder):
    about = json.loads((folder / ABOUT).read_text())
    (folder / "program.stablehlo").write_bytes(b"no program")
    about["sha256"] = "9b9cdafdeea0e2ae2a0d4b9ab2ae6dd2ab3a4f6aeb0b7b5b7f1b5a6c0e9ad2f1"
    (folder / ABOUT).write_text(json.dumps(about))


def renamed(folder):
    about = json.loads((folder / ABOUT).read_text()) | {"file": "../other"}
    (folder / ABOUT).write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage, said",
    [
        (cut, "not what was written"),
        (foreign, "not what was written"),
        (renamed, "names no program of ours"),
        (lambda folder: (folder / ABOUT).write_text("[1]"), "cannot be read"),
        (lambda folder: (folder / ABOUT).unlink(), "wanted a folder that encdec export wrote"),
        (lambda folder: (folder / "program.stablehlo").unlink(), "cannot be read"),
    ],
)
def test_damaged_and_foreign_folders_are_refused_in_one_line(exports, tmp_path, damage, said):
    shutil.copytree(exports / "unet", tmp_path / "unet")
    damage(tmp_path / "unet")
    with pytest.raises(InputError, match=said) as caught:
        encdec.open_export(tmp_path / "unet")
    assert "\n" not in str(caught.value)


def test_a_file_with_a_right_digest_that_is_no_program_is_refused(exports, tmp_path):
    import hashlib

    shutil.copytree(exports / "unet", tmp_path / "unet")
    about = json.loads((exports / "unet" / ABOUT).read_text())
    (tmp_path / "unet" / "program.stablehlo").write_bytes(b"no program")
    about["sha256"] = hashlib.sha256(b"no program").hexdigest()
    (tmp_path / "unet" / ABOUT).write_text(json.dumps(about))
    with pytest.raises(InputError, match="cannot be read by JAX"):
        encdec.open_export(tmp_path / "unet")


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 40, 40, 3)), np.zeros((40, 40, 3), np.uint8), np.zeros((1, 9, 9, 1), np.uint8)],
)
def test_other_images_are_refused_in_one_line(exports, images):
    with pytest.raises(InputError, match="wanted images of uint8"):
        encdec.open_export(exports / "unet")(images)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(24, 36), (25, 31), (5, 2)])
def test_images_are_shrunk_as_pillow_does(factor, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    wanted = reduced({"image": image}, factor)["image"]
    np.testing.assert_array_equal(shrunk(jnp.asarray(image[None]), factor)[0], wanted)


@pytest.mark.parametrize(
    "kind", ["retinanet", *(pytest.param(k, marks=pytest.mark.slow) for k in ("rcnn", "masks"))]
)
def test_objects_come_with_any_batch_and_size_up_to_a_limit(detector, tmp_path, kind):
    experiment = detector(kind)
    model, task = experiment.model, experiment.task
    variables = drawn(model)
    program = Program(model, task, limit=(64, 64))
    encdec.export(tmp_path / kind, program, variables)
    run = encdec.open_export(tmp_path / kind)
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
    found, wanted = run(images), jax.jit(program)(variables, images)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    own, valid = encdec.find(model, variables, images[0], task=task), found["valid"][0]
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_allclose(found[name][0][valid], own[name], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="sides of 1 to"):
        run(np.zeros((1, 65, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "changed, format, said",
    [
        ({"tile": -1}, "stablehlo", "tile wants 0 or more"),
        ({}, "onnx", "ONNX wants the size of its images"),
        ({"limit": (0, 9)}, "stablehlo", "--limit wants 1 pixels or more"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, changed, format, said):
    program = Program(MODELS["unet"], encdec.Segment(3), **changed)
    with pytest.raises(InputError, match=said):
        encdec.export(tmp_path / "new", program, {}, format=format)
    assert not (tmp_path / "new").exists()


def test_the_command_exports_a_run(call, finished, tmp_path):
    code, out, err = call("export", "--run", finished, "--out", tmp_path / "a", "--limit", 40, 50)
    assert (code, err) == (0, "") and out == f"{tmp_path / 'a'}\n"
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    experiment, variables = encdec.load_run(finished)
    found = encdec.open_export(tmp_path / "a")(image[None])["labels"][0]
    np.testing.assert_array_equal(found, encdec.predict(experiment.model, variables, image))
    code, _, err = call("export", "--run", finished, "--out", tmp_path / "a")
    assert code == 2 and "is there already" in err and err.count("\n") == 1


def test_what_is_known_is_computed_and_nothing_nests():
    @jax.custom_jvp
    def double(x):
        return x * 2

    double.defjvp(lambda x, t: (double(*x), double(*t)))

    def function(x):
        kernel = jnp.arange(3.0) ** 2
        x = jax.jit(double)(x) + kernel
        x = jnp.pad(x, (0, 2), mode="edge")
        return jax.lax.platform_dependent(x, cpu=lambda x: x - 1, default=lambda x: x + 1)

    x = jnp.ones(3)
    made = plain(function, jax.ShapeDtypeStruct((3,), jnp.float32))
    names = {e.primitive.name for e in jax.make_jaxpr(made)(x).eqns}
    assert not names & {"jit", "custom_jvp_call", "cond", "platform_index", "iota", "integer_pow"}
    np.testing.assert_allclose(made(x)[0], np.array([3, 4, 7, 7, 7.0]))


@pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason='wants pip install -e ".[onnx]"'
)
@pytest.mark.parametrize("name", ["fcn", "unet", "fpn", "valid", "tiled"])
def test_onnxruntime_alone_gives_the_models_numbers(tmp_path, name):
    kind, how = CASES[name]
    model, task = MODELS[kind], encdec.Segment(3)
    program = Program(model, task, limit=(40, 50), probabilities=True, **how)
    variables = drawn(model)
    encdec.export(tmp_path / "out", program, variables, format="onnx")
    images = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    paths = (tmp_path / "out" / "program.onnx", tmp_path / "images.npy", tmp_path / "found.npz")
    process("-c", ONNX, *paths, cwd=tmp_path)
    found, wanted = np.load(paths[2]), jax.jit(program)(variables, images)
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], atol=1e-4)
    assert (found["labels"] == np.asarray(wanted["labels"])).mean() > 0.999
    again = encdec.open_export(tmp_path / "out")(images)
    np.testing.assert_array_equal(again["labels"], found["labels"])
