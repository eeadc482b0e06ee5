"""The command line: what it prints, and one line for each kind of wrong input."""

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encdec import cli, flags, speed
from encdec.data.border import Border
from encdec.errors import InputError
from encdec.experiment import Experiment
from encdec.flags import parse

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """Six images and masks of 8 classes, in train/ and val/."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            ids = np.arange(32 * 32).reshape(32, 32) % 8
            picture = rng.integers(0, 255, (32, 32, 3))
            for kind, array in (("images", picture), ("masks", ids)):
                path = tmp_path / "data" / split / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return tmp_path / "data"


@pytest.fixture
def on(tiny, folder):
    """The experiment on those images."""
    from encdec.data.datasets import Folder

    names = tuple("abcdefgh")
    return tiny(data=Folder(folder, names=names, canvas=(32, 32)), steps=2)


def one_line(err, *words):
    """The one line of ours among the progress bars."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for word in words:
        assert str(word) in lines[0]


def test_unknown_overrides_are_named(tiny, tmp_path, call):
    code, _, err = call("--optimizer.rat", "3", "--workdir", tmp_path, experiment=tiny())
    assert code == 2
    one_line(err, "--optimizer.rat, 3", "perhaps --optimizer.rate FLOAT was meant", "--help")


@pytest.mark.parametrize("words, steps", [([], 1), (["long"], 2), (["short"], 1)])
def test_a_script_of_several_experiments_keeps_its_word(words, steps, tiny, tmp_path, call):
    several = {"short": tiny(steps=1), "long": tiny(steps=2)}
    code, out, err = call(*words, "--workdir", tmp_path, experiment=several)
    assert code == 0, err
    assert f"step {steps}/{steps}" in out
    known = json.loads((tmp_path / "environment.json").read_text())["command"]
    assert known.split()[1:] == [*words, "--workdir", str(tmp_path)]


def test_a_word_of_none_of_them_is_refused(tiny, call):
    code, _, err = call("longer", experiment={"short": tiny(), "long": tiny()})
    assert code == 2
    one_line(err, "short, long", "got longer")


@pytest.mark.parametrize(
    "before, args, after",
    [
        (None, (), None),
        (None, ("data.border:border",), Border()),
        (None, ("data.border:border", "--data.border.w0", "3"), Border(w0=3.0)),
        (Border(), (), Border()),
        (Border(w0=2.0), ("--data.border.sigma", "4"), Border(w0=2.0, sigma=4.0)),
        (Border(), ("data.border:border", "--data.border.no-balance"), Border(balance=False)),
        (Border(), ("data.border:none",), None),
    ],
)
def test_a_border_is_set_changed_and_left_out_by_flags(before, args, after, tiny):
    default = tiny(data=dataclasses.replace(tiny().data, border=before))
    for line in ([*args, "--steps", "7"], ["--steps", "7", *args]):
        experiment = parse(Experiment, line, default=default)
        assert (experiment.steps, experiment.data.border) == (7, after)


def test_a_flag_of_a_border_that_there_is_not_says_how_to_have_one(tiny, tmp_path, call):
    code, _, err = call("--data.border.w0", "3", "--workdir", tmp_path, experiment=tiny())
    assert code == 2
    one_line(err, "--data.border.w0 3; say data.border:border before it; --help")


def test_a_script_trains_with_a_border_by_one_word(tmp_path, tiny, call, monkeypatch):
    ran = []
    monkeypatch.setattr(cli, "run", lambda experiment, workdir: ran.append(experiment.data.border))
    assert call("data.border:border", "--workdir", tmp_path, experiment=tiny())[0] == 0
    assert ran == [Border()]


def test_a_value_of_another_type_is_named(tiny, tmp_path, call):
    code, _, err = call("--steps", "many", "--workdir", tmp_path, experiment=tiny())
    assert code == 2
    one_line(err, "--steps", "many")


def test_a_missing_flag_is_named(call):
    code, _, err = call("evaluate")
    assert code == 2
    one_line(err, "--run")


def test_help_is_printed_whole(tiny, call):
    code, out, err = call("--help", experiment=tiny())
    assert code == 0 and "--optimizer.rate" in out and not err


def test_a_missing_folder_is_named(on, tmp_path, call):
    args = ("--data.root", tmp_path / "nowhere", "--workdir", tmp_path / "run")
    code, _, err = call(*args, experiment=on)
    assert code == 2 and not (tmp_path / "run").exists()
    one_line(err, tmp_path / "nowhere", "--data.root")


def test_a_missing_validation_split_is_named_before_training(on, folder, tmp_path, call):
    shutil.rmtree(folder / "val")
    code, out, err = call("--workdir", tmp_path / "run", experiment=on)
    assert code == 2 and "step" not in out
    one_line(err, "val/images/", "--data.root")


def test_an_empty_split_is_named(on, folder, tmp_path, call):
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    code, _, err = call("--workdir", tmp_path / "run", experiment=on)
    assert code == 2
    one_line(err, "'train'", "--data.root")


def bad_size(folder):
    Image.new("L", (31, 32)).save(folder / "train" / "masks" / "1.png")


def bad_id(folder):
    Image.new("L", (32, 32), 9).save(folder / "train" / "masks" / "1.png")


def bad_file(folder):
    path = folder / "train" / "masks" / "1.png"
    path.write_bytes(path.read_bytes()[:60])


BAD = [
    (bad_size, ("masks/1.png", "32x32", "32x31")),
    (bad_id, ("masks/1.png", "class ids below 8", "9 came")),
    (bad_file, ("masks/1.png", "cannot be read", "replace it")),
]


@pytest.mark.parametrize("spoil, words", BAD, ids=["size", "id", "truncated"])
def test_training_on_a_bad_file_names_it(spoil, words, on, folder, tmp_path, call):
    spoil(folder)
    code, _, err = call("--workdir", tmp_path / "run", experiment=on)
    assert code == 2
    one_line(err, *words)


def test_check_names_every_bad_file(folder, call):
    names = [arg for arg in ("--names", *"abcdefgh")]
    assert call("check", "folder", "--root", folder, *names)[0] == 0
    Image.new("L", (31, 32)).save(folder / "train" / "masks" / "0.png")
    Image.new("L", (32, 32), 9).save(folder / "train" / "masks" / "1.png")
    path = folder / "train" / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    (folder / "val" / "masks" / "1.png").unlink()
    code, out, err = call("check", "folder", "--root", folder, *names)
    lines = out.splitlines()
    assert code == 2 and "Traceback" not in err and lines[-1] == "4 fault(s)" and len(lines) == 5
    for name in ("train/masks/0.png", "train/masks/1.png", "train/images/2.png", "val/images/1"):
        assert any(name in line for line in lines)


@pytest.mark.parametrize("args", [("check",), ("check", "imagenet")])
def test_check_wants_a_kind_of_data(args, call):
    code, _, err = call(*args)
    assert code == 2
    one_line(err, "shapes, camvid, voc, isbi_em, dsb2018, chase_db1, cell_tracking, coco_stuff")


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--model.decoder.strides", "1", "64"), ("64", "stride")),
        (("--model.head.classes", "0"), ("classes", "0")),
        (("--task.classes", "0"), ("classes", "0")),
        (("--task.classes", "7"), ("--model.head.classes 8", "--task.classes 7")),
        (("--steps", "0"), ("--steps",)),
        (("--batch", "3"), ("multiple of the 4 devices",)),
        (("--seed", "-1"), ("--seed", "-1")),
        (("--optimizer.accumulate", "0"), ("accumulate", "0")),
        (("--model.encoder.width", "0"), ("width", "0")),
        (("--optimizer.freeze", "backbone"), ("backbone", "decoder")),
        (("--augment.size", "0", "32"), ("augment size",)),
    ],
)
def test_settings_that_cannot_be_are_refused(flags, words, tiny, tmp_path, call):
    code, out, err = call(*flags, "--workdir", tmp_path / "run", experiment=tiny())
    assert code == 2 and "Traceback" not in out + err
    assert not (tmp_path / "run").exists()  # the folder stays free for the right settings
    one_line(err, *words)


@pytest.mark.parametrize("command", ["evaluate", "predict", "summary"])
def test_a_folder_that_is_no_run_is_named(command, tmp_path, call):
    images = (tmp_path / "a.png",) if command == "predict" else ()
    code, _, err = call(command, *images, "--run", tmp_path / "none")
    assert code == 2
    one_line(err, tmp_path / "none")


def test_evaluate_prints_one_line_of_json_last(finished, call):
    code, out, err = call("evaluate", "--run", finished, "--data.split", "test")
    line = json.loads(out.splitlines()[-1], parse_constant=pytest.fail)
    assert code == 0 and line["run"] == str(finished) and line["split"] == "test"
    assert 0 <= line["mean_iou"] <= 1 and "iou/background" in line
    assert not any(name.startswith("iou/") and name[4:].isdigit() for name in line)


def test_evaluate_scores_any_folder_of_the_format(on, folder, tmp_path, call):
    assert call("--workdir", tmp_path / "run", experiment=on)[0] == 0
    shutil.copytree(folder, tmp_path / "other")
    code, out, _ = call(
        "evaluate", "--run", tmp_path / "run", "--data.root", tmp_path / "other", "--data.split",
        "train", "--batch", "8",
    )  # fmt: skip
    assert code == 0 and json.loads(out.splitlines()[-1])["split"] == "train"


def test_predict_writes_masks_and_overlays_at_the_image_s_size(finished, tmp_path, call):
    Image.fromarray(np.zeros((37, 45, 3), np.uint8)).save(tmp_path / "street.png")
    out = tmp_path / "out"
    code, said, _ = call("predict", tmp_path / "street.png", "--run", finished, "--out", out)
    assert code == 0 and said.split() == [
        str(out / "street_mask.png"), str(out / "street_overlay.png"),
    ]  # fmt: skip
    mask = np.array(Image.open(out / "street_mask.png"))
    assert mask.shape == (37, 45) and mask.max() < 8
    assert np.array(Image.open(out / "street_overlay.png")).shape == (37, 45, 3)


def test_predict_says_how_many_programs_its_images_took(finished, tmp_path, call):
    for i, size in enumerate(((33, 40), (64, 64), (50, 60))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    code, said, err = call(
        "predict", *sorted(tmp_path.glob("*.png")), "--run", finished, "--out", tmp_path / "out",
        "--tile", "48", "--tta", "flip", "flip_rows", "--scales", "1", "--memory", "1",
    )  # fmt: skip
    assert code == 0 and len(said.split()) == 6
    assert err.splitlines()[-1] == "images: 3; programs compiled: 1"


def test_predict_names_a_turn_that_it_does_not_know(finished, tmp_path, call):
    code, _, err = call("predict", tmp_path / "a.png", "--run", finished, "--tta", "spin")
    assert code == 2
    one_line(err, "--tta", "spin")


def test_predict_wants_images_that_are_there(finished, tmp_path, call):
    code, _, err = call("predict", "--run", finished)
    assert code == 2
    one_line(err, "IMAGE")
    code, _, err = call("predict", tmp_path / "none.png", "--run", finished)
    assert code == 2
    one_line(err, "none.png", "no such file")


def test_predict_names_a_folder_that_cannot_be_made(finished, tmp_path, call):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "a.png" / "out"
    code, _, err = call("predict", tmp_path / "a.png", "--run", finished, "--out", out)
    assert code == 2
    one_line(err, "--out", out)


def test_predict_names_an_image_that_cannot_be_read(finished, tmp_path, call):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    asked = ("predict", tmp_path / "cut.png", "--run", finished, "--out", tmp_path / "out")
    code, _, err = call(*asked)
    assert code == 2
    one_line(err, "cut.png")


def test_another_experiment_in_the_folder_is_refused_by_its_flag(finished, tiny, call):
    experiment = tiny(tensorboard=True)
    code, _, err = call("--seed", "5", "--workdir", finished, experiment=experiment)
    assert code == 2
    one_line(err, "--seed", "another --workdir")


def test_summary_counts_parameters_memory_and_time_of_a_batch(finished, call, monkeypatch):
    monkeypatch.setattr(speed, "training_speed", lambda: (1e9, 0.0))
    code, out, _ = call("summary", "--run", finished)
    assert code == 0 and "1,784" in out and "\ntraining on 4 images: about " in out
    assert "1.0 GFLOP/s" in out.splitlines()[-1] and "for 8 steps" in out.splitlines()[-1]


def test_help_and_unknown_commands(call):
    code, out, _ = call("--help")
    assert code == 0 and all(f"\n  {name} " in out for name in ("evaluate", "predict", "check"))
    assert call()[:2] == (0, out)
    code, _, err = call("fly")
    assert code == 2
    one_line(err, "evaluate, predict", "fly")


@pytest.mark.parametrize(
    "args, meant",
    [
        (("predcit",), "predict"),
        (("check", "CamVid"), "camvid"),
        (("check", "shape"), "shapes"),
    ],
)
def test_the_nearest_word_is_named(args, meant, call):
    code, _, err = call(*args)
    assert code == 2
    one_line(err, f"; perhaps {meant} was meant")


def test_the_nearest_word_of_a_script_is_named(tiny, call, monkeypatch):
    code, _, err = call("shrot", experiment={"short": tiny(), "long": tiny()})
    assert code == 2
    one_line(err, "; perhaps short was meant")
    monkeypatch.setattr(sys, "argv", ["compare.py", "camvdi"])
    with pytest.raises(InputError, match="; perhaps camvid was meant"):
        flags.chosen({"shapes": tiny(), "camvid": tiny()})


def test_an_interrupt_is_a_line_and_code_130(call, monkeypatch):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "check_command", stop)
    code, _, err = call("check")
    assert code == 130 and "goes on from the newest checkpoint" in err and "Traceback" not in err


def test_a_reader_that_has_enough_ends_it_without_a_traceback(finished):
    start = "from encdec.cli import main; main()"
    words = [sys.executable, "-c", start, "evaluate", "--run", str(finished), "--help"]
    line = f"set -o pipefail; {shlex.join(words)} | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_script_of_its_own_process_fails_with_one_line(folder, tmp_path):
    bad_file(folder)
    script = ROOT / "experiments" / "shapes_fcn32s.py"
    start = (
        "import runpy, sys, dataclasses; from pathlib import Path; from encdec import cli;"
        "from encdec.data.datasets import Folder;"
        f"found = runpy.run_path({str(script)!r})['experiment']();"
        f"data = Folder(Path({str(folder)!r}), names=tuple('abcdefgh'), canvas=(32, 32));"
        "cli.main(dataclasses.replace(found, data=data))"
    )
    flags = ["--model.encoder.width", "4", "--augment.size", "32", "32", "--steps", "2"]
    command = [sys.executable, "-c", start, *flags, "--workdir", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 2
    one_line(done.stderr, "masks/1.png", "cannot be read")


@pytest.mark.parametrize(
    "args, words",
    [
        (("check", "--help"), ("encdec check DATASET", "bccd")),
        (("check", "bccd", "--help"), ("encdec check bccd", "--splits")),
        (("predict", "--help"), ("encdec predict", "--tile")),
        (("evaluate", "--help"), ("encdec evaluate", "--run PATH")),
    ],
)
def test_help_is_help(args, words, call):
    code, out, _ = call(*args)
    assert not code and all(word in out for word in words)


def test_help_of_a_run_lists_the_flags_of_its_experiment(finished, call):
    code, out, _ = call("evaluate", "--run", finished, "--help")
    assert not code and "--data.split" in out and "--model.encoder" in out
