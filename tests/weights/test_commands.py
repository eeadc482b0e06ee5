"""encdec import-weights and export-weights: files of other libraries, folders of ours, runs."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import encdec
from encdec import papers, weights
from encdec.errors import InputError
from encdec.experiment import load
from encdec.train.loop import run, variables_of
from encdec.weights.commands import WHOLE, encoders, initial
from encdec.weights.files import read, write


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A torchvision MobileNetV2's file, with its classifier."""
    model = encdec.mobilenet_v2()
    variables = initial(model, 3)
    path = tmp_path_factory.mktemp("published") / "mobilenet_v2.safetensors"
    weights.export(path.with_stem("encoder"), model, variables, source="torchvision")
    classifier = {"classifier.1.weight": np.zeros((1000, 1280), np.float32)}
    write(path, read(path.with_stem("encoder")) | classifier)
    return path, variables


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def refused(call, *args, words):
    code, _, err = call(*args)
    assert code == 2 and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert all(word in lines[0] for word in words), lines[0]


def taking(network="mobilenet_v2", source="torchvision"):
    return ("--network", network, "--source", source)


def test_a_file_becomes_a_folder_and_the_folder_a_file(published, tmp_path, call):
    path, variables = published
    folder, again = tmp_path / "folder", tmp_path / "again.safetensors"
    code, out, _ = call("import-weights", path, *taking(), "--out", folder)
    assert code == 0 and out.splitlines()[-1] == str(folder)
    assert "classifier.1.weight" in out
    model, ours = weights.open(folder)
    assert model == encdec.mobilenet_v2() and same(ours, variables)
    assert f"import-weights {path} --network mobilenet_v2" in (folder / "README.md").read_text()

    code, out, _ = call(
        "export-weights", "--run", folder, "--source", "torchvision", "--out", again
    )
    assert code == 0 and out == f"{again}\n"
    theirs = read(path)
    del theirs["classifier.1.weight"]
    assert same(read(again), theirs)


def test_grey_images_are_asked_for(published, tmp_path, call):
    path, variables = published
    args = ("import-weights", path, *taking(), "--channels", "1", "--out", tmp_path / "grey")
    assert call(*args)[0] == 0
    _, ours = weights.open(tmp_path / "grey")
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    found = ours["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(found, kernel.sum(2, keepdims=True), rtol=1e-6)


def test_a_run_becomes_a_folder_with_its_numbers(finished, tmp_path, call):
    assert call("export-weights", "--run", finished, "--out", tmp_path / "all")[0] == 0
    model, ours = weights.open(tmp_path / "all")
    experiment = load(finished)
    assert model == experiment.model
    assert same(ours, variables_of(experiment, finished))
    card = (tmp_path / "all" / "README.md").read_text()
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    last = [line["val"] for line in lines if "val" in line][-1]
    for words in ("Shapes", "disc", f"{last['mean_iou']:.4f}", "command"):
        assert words in card, words

    args = ("export-weights", "--run", finished, "--part", "encoder", "--out", tmp_path / "part")
    assert call(*args)[0] == 0
    encoder, part = weights.open(tmp_path / "part")
    assert encoder == model.encoder and same(part["params"], ours["params"]["encoder"])
    (tmp_path / "part" / "README.md").unlink()
    export = ("export-weights", "--run", tmp_path / "part", "--out", tmp_path / "again")
    assert call(*export)[0] == 0
    refused(call, *export[:-1], tmp_path / "x", "--part", "conv1_s1", words=["is an encoder"])


def test_a_folder_of_a_run_predicts_and_is_scored_as_the_run(finished, tmp_path, call):
    kept = tmp_path / "kept"
    for source, folder in ((finished, tmp_path / "first"), (tmp_path / "first", kept)):
        assert call("export-weights", "--run", source, "--out", folder)[0] == 0
    written = (kept / "README.md").read_text() + (kept / "experiment.json").read_text()
    assert str(load(finished).data.root) not in written and str(finished) not in written

    pixels = np.random.default_rng(0).integers(0, 256, (40, 33, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    masks = []
    for flag, folder in (("--run", finished), ("--model", kept)):
        out = tmp_path / folder.name
        assert call("predict", tmp_path / "photo.png", flag, folder, "--out", out)[0] == 0
        masks.append((out / "photo_mask.png").read_bytes())
    assert masks[0] == masks[1]

    root = ("--data.root", load(finished).data.root)
    scores = [json.loads(call("evaluate", "--run", f, *root)[1]) for f in (finished, kept)]
    assert {**scores[0], "run": str(kept)} == scores[1]
    refused(call, "evaluate", "--run", kept, "--model.head.classes", "9", words=["leave out"])
    with pytest.raises(InputError, match="holds weights, not a run"):
        run(load(kept), kept)


def test_every_encoder_with_published_names_can_be_asked_for():
    known = encoders()
    named = {"resnet50", "mobilenet_v3_small", "efficientnet_b4", "vgg16", "vgg16_bn"}
    assert named <= known.keys()
    assert not known.keys() & WHOLE.keys()
    assert all(hasattr(make(), "mean") for make in known.values())
    assert WHOLE["smp_unet_scse"](classes=3, encoder=encdec.resnet18()).decoder == (
        papers.smp_unet(3, encdec.resnet18(), attention=True).decoder
    )


def test_what_cannot_be_is_one_line(published, finished, tmp_path, call):
    path, _ = published
    out = ("--out", tmp_path / "out")
    args = ("import-weights", path)
    refused(call, *args, *taking("resnet5"), *out, words=["resnet50", "'resnet5'"])
    refused(call, *args, *taking("resnet18"), *out, words=["bn1.running_mean"])
    refused(call, *args, *taking("smp_unet", "smp"), "--encoder", "x", *out, words=["--encoder"])
    refused(call, *args, *taking(), "--out", path.parent, words=["not empty"])
    pickled = tmp_path / "net.pth"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    refused(call, "import-weights", pickled, *taking(), *out, words=["net.pth", "weights_only"])
    export = ("export-weights", "--run", finished)
    refused(call, *export, "--source", "timm", *out, words=["timm"])
    refused(call, *export, "--part", "body", *out, words=["part", "encoder", "'body'"])
    refused(call, "export-weights", "--run", tmp_path / "none", *out, words=["none"])
    refused(call, *args, *taking("mobilenetv2"), *out, words=["perhaps mobilenet_v2"])
    refused(call, *args, *taking(), "--channels", "0", *out, words=["--channels wants 1"])
    file = ("--out", tmp_path / "out.safetensors")
    refused(call, *export, *file, words=["wants --source"])
    refused(call, *export, "--source", "smp", *file, words=["smp", "another source"])
    assert not (tmp_path / "out").exists()
