"""Every experiment script: its step fits together, and it runs at toy size."""

import dataclasses
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from encdec import cli, weights
from encdec.data.datasets import CAMVID
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import check_classes, to_json
from encdec.records import read
from encdec.train.loop import variables_of
from encdec.train.step import create_state, train_step

SCRIPTS = sorted(
    path
    for path in (Path(__file__).parent.parent / "experiments").glob("*_*.py")
    if "cli.main(" in path.read_text()  # the others train several networks
)
COMPARED = [path for path in SCRIPTS if path.stem.startswith(("camvid", "shapes"))]
VOC = [path for path in SCRIPTS if path.stem.startswith("voc")]
DEFAULT = {"camvid_fcn8s"}  # the others take half a minute each: -m slow


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tabled(folder):
    """The rows of the table in a grid's record."""
    (made,) = read(folder / "record.json")["tables"]
    return made["rows"]


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """A folder in CamVid's form: five images of 48x64 to train on, two to validate."""
    root, rng = tmp_path_factory.mktemp("CamVid"), np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for folder, channels in ((split, (3,)), (f"{split}annot", ())):
            (root / folder).mkdir()
            for i in range(count):
                high = 255 if channels else len(CAMVID) + 1  # 11 is "unlabelled"
                pixels = rng.integers(0, high, (48, 64, *channels)).astype(np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


def test_there_is_a_script_for_each_model_and_data_set():
    models = ("fcn16s", "fcn32s", "fcn8s", "fpn", "unet")
    wanted = [f"{data}_{model}" for data in ("camvid", "shapes") for model in models]
    assert [path.stem for path in COMPARED] == wanted


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_the_comparison_trains_the_same_models_by_the_same_recipe(path):
    compare, alone = script(SCRIPTS[0].parent / "compare.py"), script(path).experiment()
    job = compare.DEFAULTS[path.stem.split("_")[0]]
    names = {"unet": "U-Net", "fpn": "FPN"} | {f"fcn{n}s": f"FCN-{n}s" for n in (8, 16, 32)}
    model = compare.models(job.encoder, len(job.data.classes))[names[path.stem.split("_")[1]]]
    compared = to_json(compare.experiment(job, model, alone.seed))
    for part in ("model", "augment", "task", "optimizer", "batch", "seed"):
        assert compared[part] == to_json(alone)[part], part


@pytest.mark.parametrize("stage, name", [*enumerate(["32s", "16s", "8s"])])
def test_the_stages_train_as_the_scripts_of_the_published_nets_do(stage, name):
    stages = script(SCRIPTS[0].parent / "stages.py")
    alone = to_json(script(SCRIPTS[0].parent / f"voc_fcn{name}.py").experiment())
    staged = to_json(stages.experiment(stages.DEFAULTS["voc"], stage))
    for part in ("model", "data", "augment", "task", "optimizer", "steps", "batch", "seed"):
        assert staged[part] == alone[part], part
    assert (staged["start"] is None) == (alone["start"] is None) == (stage == 0)


def toy(job, tiny, folder):
    """The job at toy size."""
    encoder = ResNet((1, 1, 1, 1), width=4)
    small = {"data": tiny.data, "augment": tiny.augment, "encoder": encoder, "steps": 2, "batch": 4}
    return dataclasses.replace(job, workdir=folder, **small)


@pytest.mark.slow
def test_three_stages_at_toy_size(tiny, tmp_path, capsys):
    """Each starts from the one before; a second call trains nothing."""
    stages = script(SCRIPTS[0].parent / "stages.py")
    job = toy(stages.DEFAULTS["shapes"], tiny(), tmp_path)
    rows = stages.train(job)
    assert [row["starts from"] for row in rows] == ["random weights", "FCN-32s", "FCN-16s"]
    assert capsys.readouterr().out.count("step 1/2") == 3
    again = stages.train(job)
    assert again == rows == json.loads((tmp_path / "table.json").read_text())
    assert "step 1/2" not in capsys.readouterr().out


@pytest.mark.slow
def test_finetuning_starts_from_the_weights_it_is_given(tiny, tmp_path, capsys):
    """A frozen encoder stays to the bit, statistics too; a second call trains nothing."""
    finetune, folder = script(SCRIPTS[0].parent / "finetune.py"), tmp_path / "weights"
    encoder = ResNet((1, 1, 1, 1), width=4, mean=(0.1, 0.2, 0.3))
    given = jax.jit(partial(encoder.init, train=False))(
        jax.random.key(1), jnp.zeros((1, 32, 32, 3))
    )
    weights.save(folder, encoder, given)
    job = finetune.Finetune(
        folder,
        data=tiny().data,
        augment=tiny().augment,
        models=("FPN",),
        starts=("frozen",),
        steps=(2, 2, 2),
        batch=4,
        workdir=tmp_path,
    )
    rows = finetune.train(job)
    assert capsys.readouterr().out.count("step 1/2") == 1
    assert rows == finetune.train(job) == tabled(tmp_path)
    assert "step 1/2" not in capsys.readouterr().out
    one = finetune.experiment(job, "FPN", "frozen")
    assert one.model.encoder == encoder
    after = variables_of(one, tmp_path / "FPN_frozen" / "seed0")
    for kind in ("params", "batch_stats"):
        assert jax.tree.all(jax.tree.map(np.array_equal, after[kind]["encoder"], given[kind]))
    starts = {s: finetune.experiment(job, "U-Net", s) for s in ("random", "pretrained", "slow")}
    assert [one.start for one in starts.values()] == [None, folder, folder]
    assert starts["slow"].optimizer.rates == (("encoder", 0.1),)


def test_finetuning_wants_an_encoders_weights(tiny, finished, tmp_path):
    finetune, model = script(SCRIPTS[0].parent / "finetune.py"), tiny().model
    weights.save(tmp_path / "whole", model, variables_of(tiny(), finished))
    with pytest.raises(InputError, match="those of an encoder; .*whole are of a EncoderDecoder"):
        finetune.experiment(finetune.Finetune(tmp_path / "whole"), "FPN", "slow")


@pytest.mark.paper(
    "FCN release",
    says="heavy learning: one image, momentum 0.99, rates 1e-10, 1e-12, 1e-14, 100,000 steps each",
    does="the same, `experiments/stages.py voc`; from ImageNet's VGG16 with `--start`",
    differs="not run to the end here; images are drawn without replacement, epoch by epoch",
)
def test_stages_of_voc_are_the_releases():
    stages = script(SCRIPTS[0].parent / "stages.py")
    job = stages.DEFAULTS["voc"]
    runs = [stages.experiment(job, stage) for stage in range(3)]
    assert [one.optimizer.rate for one in runs] == [1e-10, 1e-12, 1e-14]
    for one in runs:
        assert (one.batch, one.steps, one.task.reduction) == (1, 100_000, "sum")
        assert (one.optimizer.momentum, one.optimizer.bias_rate) == (0.99, 2.0)
    job = dataclasses.replace(job, start=Path("weights"))
    assert stages.experiment(job, 0).start == Path("weights")
    assert stages.experiment(job, 1).start == job.workdir / "FCN-32s"


@pytest.mark.paper(
    "FCN §4.3",
    says="batches of 20, momentum 0.9, rate 1e-4, 100 times lower for each skip, 175 epochs",
    does="the same, `experiments/stages.py voc_cvpr`",
    differs="not run here",
)
def test_stages_of_the_cvpr_text_have_batches_of_twenty():
    stages = script(SCRIPTS[0].parent / "stages.py")
    runs = [stages.experiment(stages.DEFAULTS["voc_cvpr"], stage) for stage in range(3)]
    assert [one.optimizer.rate for one in runs] == pytest.approx([1e-4, 1e-6, 1e-8])
    for one in runs:
        assert (one.batch, one.task.reduction, one.optimizer.momentum) == (20, "mean", 0.9)
        assert 175 * 8498 <= one.steps * one.batch < 176 * 8498


@pytest.mark.slow
def test_a_comparison_at_toy_size(tiny, tmp_path, capsys):
    """All five decoders; a second call trains nothing, and writes the same table."""
    compare = script(SCRIPTS[0].parent / "compare.py")
    job = toy(compare.SHAPES, tiny(), tmp_path)
    rows = compare.compare(job)
    assert [row["model"] for row in rows] == ["FCN-32s", "FCN-16s", "FCN-8s", "U-Net", "FPN"]
    assert capsys.readouterr().out.count("step 1/2") == 5
    again = compare.compare(job)
    assert again == rows and "step 1/2" not in capsys.readouterr().out
    assert {"pixel accuracy", "mean IoU", "boundary F", "decoder + head"} <= set(rows[0])
    assert "only the decoder differs" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "comparison.png").exists() and (tmp_path / "differences.png").exists()


def test_a_sample_of_a_comparison_at_toy_size(tiny, tmp_path, monkeypatch, capsys):
    compare = script(SCRIPTS[0].parent / "compare.py")
    two = dict.fromkeys(("FCN-8s", "FPN"), tiny().model)
    monkeypatch.setattr(compare, "models", lambda encoder, classes: two)
    data, augment = tiny().data, tiny().augment
    job = dataclasses.replace(
        compare.SHAPES, data=data, augment=augment, steps=2, batch=4, workdir=tmp_path
    )
    assert [row["model"] for row in compare.compare(job)] == ["FCN-8s", "FPN"]
    assert "only the decoder differs" in (tmp_path / "report.html").read_text()


def test_a_comparison_has_at_least_one_seed():
    compare = script(SCRIPTS[0].parent / "compare.py")
    with pytest.raises(InputError, match="--seeds must be at least 1; got 0"):
        dataclasses.replace(compare.SHAPES, seeds=0)


@pytest.mark.parametrize(
    "path",
    [path for path in SCRIPTS if not path.stem.startswith("coco")],  # those are in test_recipes
    ids=lambda path: path.stem,
)
def test_the_step_at_full_size_fits_together(path):
    assert "loss" in traced(script(path).experiment())


def traced(experiment):
    """Losses of a step, as shapes alone: nothing is compiled. The state keeps its shapes."""
    check_classes(experiment)
    b, canvas = experiment.batch, experiment.data.canvas
    batch = {
        "image": jax.ShapeDtypeStruct((b, *canvas, 3), jnp.uint8),
        "size": jax.ShapeDtypeStruct((b, 2), jnp.int32),
        "index": jax.ShapeDtypeStruct((b,), jnp.int32),
    }
    n = (b, experiment.data.max_boxes)
    every = {"label": {"label": ((b, *canvas), jnp.uint8)}}
    every["instances"] = {"instances": ((b, *canvas), jnp.int32), "ids": (n, jnp.int32)}
    every["boxes"] = {"boxes": ((*n, 4), jnp.float32), "classes": (n, jnp.int32)}
    every["boxes"] |= {name: (n, bool) for name in ("box_mask", "crowd")}
    for key in set(experiment.task.keys) & set(every):
        batch |= {name: jax.ShapeDtypeStruct(*made) for name, made in every[key].items()}
    model, optimizer, steps = experiment.model, experiment.optimizer, experiment.steps
    shape = (1, *experiment.augment.size, 3)
    state = jax.eval_shape(lambda: create_state(model, optimizer, shape, 0, steps))
    step = partial(
        train_step,
        model=model,
        task=experiment.task,
        augment=experiment.augment,
        optimizer=optimizer,
        steps=steps,
    )
    after, losses = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert losses["loss"].shape == ()
    return set(losses)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in DEFAULT else pytest.mark.slow)
        for path in COMPARED
    ],
)
def test_two_steps_at_toy_size(path, tiny, camvid, tmp_path, monkeypatch, capfd):
    root = camvid if path.stem.startswith("camvid") else tiny().data.root
    size = [] if root == camvid else ["--data.size", "32", "--data.train", "12", "--data.val", "5"]
    size += [] if root == camvid else ["--data.test", "2"]
    flags = ["--data.root", root, *size, "--augment.size", "32", "32", "--batch", "4"]
    flags += ["--steps", "2", "--workdir", tmp_path / "run"]
    flags += ["--model.encoder.width", "4", "--model.encoder.blocks", "1", "1", "1", "1"]
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, flags)])
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # `main` adds to it
    cli.main(script(path).experiment())
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert all(np.isfinite(line["loss"]) for line in lines[:2])
    assert 0 <= lines[2]["val"]["mean_iou"] <= 1
    assert (tmp_path / "run" / path.name).read_text() == path.read_text()
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.fixture(scope="module")
def biomedical(tmp_path_factory):
    """Folders in the forms of the three sets, with images of 64x64."""
    root, rng = tmp_path_factory.mktemp("biomedical"), np.random.default_rng(0)
    for name in ("isbi", "dsb2018/train/images", "dsb2018/train/masks", "chase"):
        (root / name).mkdir(parents=True)
    (root / "dsb2018" / "val").symlink_to(root / "dsb2018" / "train")
    ids = np.kron(np.arange(16).reshape(4, 4), np.ones((16, 16), int))

    def grey(high=256):
        return Image.fromarray(rng.integers(0, high, (64, 64)).astype(np.uint8))

    pages = [Image.fromarray((ids % 5 > 0).astype(np.uint8) * 255) for _ in range(3)]
    for file, stack in (("volume", [grey() for _ in range(3)]), ("labels", pages)):
        stack[0].save(root / "isbi" / f"train-{file}.tif", save_all=True, append_images=stack[1:])
    for i in range(3):
        grey().save(root / "dsb2018/train/images" / f"{i}.png")
        Image.fromarray(ids.astype(np.uint16)).save(root / "dsb2018/train/masks" / f"{i}.png")
        grey().convert("RGB").save(root / "chase" / f"Image_0{i + 8}L.jpg".replace("010", "10"))
        drawn = Image.fromarray((ids % 3 == 0).astype(np.uint8) * 255).convert("1")
        drawn.save(root / "chase" / f"Image_0{i + 8}L_1stHO.png".replace("010", "10"))
    return root


@pytest.mark.parametrize(
    "name, flags, scores",
    [
        (
            "isbi",
            ("--data.validate", "2", "3", "--augment.size", "76", "76"),
            {"v_rand", "v_info", "rand_error", "pixel_error"},
        ),
        pytest.param(
            "dsb2018",
            ("data.border:border", "--augment.size", "32", "32"),
            {"object_f1", "object_ap", "seg"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "chase",
            ("--augment.size", "32", "32"),
            {"auc", "sensitivity", "specificity", "f1"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_biomedical_sets_at_toy_size(name, flags, scores, biomedical, tmp_path, monkeypatch, capfd):
    """The nets as they are but for width and depth; the batch of one tile on one device alone."""
    path = SCRIPTS[0].parent / f"{name}_unet.py"
    size = ["--model.encoder.channels", "4", "4", "--model.decoder.strides", "1", "2"]
    size += ["--model.decoder.channels", "4", "--batch", "4", "--steps", "2"]
    run = [*flags, "--data.root", biomedical / name, *size, "--workdir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, run)])
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # `main` adds to it
    cli.main(script(path).experiment())
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert scores <= set(lines[-1]["val"])
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    "name, recipe",
    [
        ("camvid_fpn", "full_size"),
        ("isbi_unet", "normalised"),
        ("dsb2018_unet", "resnet"),
        ("chase_unet", "dice"),
    ],
)
def test_a_second_recipe_has_logits_for_every_pixel_of_its_crops(name, recipe):
    one = getattr(script(SCRIPTS[0].parent / f"{name}.py"), recipe)()
    image = jax.ShapeDtypeStruct((1, *one.augment.size, 3), np.float32)
    outputs, _ = jax.eval_shape(one.model.init_with_output, jax.random.key(0), image)
    assert outputs["logits"].shape == (1, *one.augment.size, len(one.data.classes))


@pytest.mark.slow
def test_real_camvid_is_read_at_full_size(monkeypatch):
    """One batch of the real files, where they are."""
    if not os.environ.get("ENCDEC_DATA"):
        pytest.skip("set ENCDEC_DATA to the folder that holds CamVid/")
    from encdec.data.pipeline import train_batches

    path = next(path for path in SCRIPTS if path.stem == "camvid_fpn")
    data = dataclasses.replace(script(path).experiment().data)
    batch = next(train_batches(data, batch=4, seed=0))
    assert batch["image"].shape == (4, 180, 240, 3)
    assert set(np.unique(batch["label"])) <= {*range(11), 255}
