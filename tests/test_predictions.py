import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import encdec
from encdec import coco_results, predictions, visualize
from encdec.data.listing import Listed
from encdec.data.voc import _xml
from encdec.errors import InputError
from encdec.experiment import load
from encdec.outputs import Files, Form, Found, opened, targets
from tests.test_cli import one_line

RNG = np.random.default_rng(0)


def photo(path, size=(33, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Four images of one program, in two folders."""
    for name in ("a.png", "b.jpg", "sub/a.png", "sub/c.png"):
        photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def seen(monkeypatch):
    """Sizes of the images that nets have seen, in their order."""
    sizes = []

    def counted(work):
        def count(model, variables, image, **options):
            sizes.append(image.shape[:2])
            return work(model, variables, image, **options)

        return count

    for name in ("predict", "predict_outputs", "find"):
        monkeypatch.setattr(predictions, name, counted(getattr(predictions, name)))
    return sizes


def below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


OURS = ["lock", "predictions-0.jsonl", "predictions.json"]


def test_a_folder_s_results_have_its_names_and_sub_folders(finished, photos, call):
    out = photos / "out"
    code, said, err = call("predict", photos, "--run", finished, "--out", out, "--write", "mask")
    wanted = ["a_mask.png", "b_mask.png", "sub/a_mask.png", "sub/c_mask.png"]
    assert code == 0 and said.split() == [str(out / name) for name in wanted]
    assert below(out) == sorted(wanted + OURS)
    assert "images: 4; programs compiled:" in err


def test_a_mask_has_the_image_s_size_and_a_palette(finished, photos, call):
    out = photos / "out"
    call("predict", photos / "a.png", "--run", finished, "--out", out)
    with Image.open(out / "a_mask.png") as mask:
        ids = np.array(mask)
        assert mask.mode == "P" and ids.shape == (33, 40) and len(np.unique(ids)) > 1
        colours = np.array(mask.convert("RGB"))
    np.testing.assert_array_equal(colours, visualize.colourise(ids, 8))
    call("predict", photos / "a.png", "--run", finished, "--out", photos / "tiff", "--tiff")
    with Image.open(photos / "tiff" / "a_mask.tif") as mask:
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.array(mask), ids)


def test_a_run_of_resized_images_sees_them_so(finished, photos, call, tmp_path):
    """Masks are of the photo's own size; a program, which resizes nothing, is refused."""
    run, out = tmp_path / "run", photos / "out"
    shutil.copytree(finished, run)
    written = json.loads((run / "experiment.json").read_text())
    written["data"]["side"] = [48, 99]
    (run / "experiment.json").write_text(json.dumps(written))
    assert call("predict", photos / "a.png", "--run", run, "--out", out, "--write", "mask")[0] == 0
    experiment, variables = encdec.load_run(run)
    image = np.array(Image.open(photos / "a.png"))
    wanted = encdec.predict(experiment.model, variables, image, scales=(48 / 33,))
    np.testing.assert_array_equal(Image.open(out / "a_mask.png"), wanted)
    code, _, err = call("export", "--run", run, "--out", tmp_path / "program")
    assert code == 2
    one_line(err, "a program resizes no images; the run's are resized to sides of (48, 99)")


def test_probabilities_and_polygons_are_those_of_the_mask(finished, photos, call):
    out, kinds = photos / "out", ("mask", "probabilities", "polygons")
    code, *_ = call("predict", photos / "sub", "--run", finished, "--out", out, "--write", *kinds)
    assert code == 0
    ids = np.array(Image.open(out / "a_mask.png"))
    with np.load(out / "a_probabilities.npz", allow_pickle=False) as kept:
        names, probabilities = kept["classes"].tolist(), kept["probabilities"]
    assert probabilities.dtype == np.float16 and probabilities.shape == (33, 40, 8)
    np.testing.assert_allclose(probabilities.astype(float).sum(-1), 1, atol=5e-3)
    assert (probabilities.argmax(-1) == ids).mean() > 0.99  # but for ties of 16 bits
    outlined = np.zeros(8)
    for one in json.loads((out / "a_polygons.geojson").read_text())["features"]:
        assert one["properties"]["image"] == "a.png"
        for ring in map(np.array, one["geometry"]["coordinates"]):
            (x, y), (u, v) = ring[:-1].T, ring[1:].T
            outlined[names.index(one["properties"]["class"])] += (x * v - u * y).sum() / 2
    assert names[0] == "background" and outlined[1:].sum() > 0
    np.testing.assert_array_equal(outlined[1:], np.bincount(ids.ravel(), minlength=8)[1:])


def test_a_stack_s_results_are_stacks(finished, photos, call):
    pages = [Image.open(photo(photos / "pages" / f"{i}.png", (20 + i, 30))) for i in range(3)]
    pages[0].save(photos / "s.tif", save_all=True, append_images=pages[1:])
    out, kinds = photos / "out", ("mask", "overlay", "probabilities", "polygons")
    flags = ("--run", finished, "--write", *kinds)
    assert call("predict", photos / "s.tif", *flags, "--out", out)[0] == 0
    assert call("predict", photos / "pages", *flags, "--out", photos / "single")[0] == 0
    for i in range(3):
        for kind in ("mask", "overlay"):
            with Image.open(out / f"s_{kind}.tif") as stack:
                assert stack.n_frames == 3
                stack.seek(i)
                single = np.array(Image.open(photos / "single" / f"{i}_{kind}.png"))
                np.testing.assert_array_equal(np.array(stack), single)
    with np.load(out / "s_probabilities.npz") as kept:
        assert kept["page2"].shape == (22, 30, 8)
    features = json.loads((out / "s_polygons.geojson").read_text())["features"]
    assert {one["properties"]["page"] for one in features} == {0, 1, 2}


def test_a_stack_with_a_bad_page_leaves_nothing(finished, photos, call):
    pages = [Image.new("L", (20, 20), 3), Image.new("I;16", (20, 20))]
    pages[0].save(photos / "s.tif", save_all=True, append_images=pages[1:])
    code, said, err = call("predict", photos / "s.tif", "--run", finished, "--out", photos / "out")
    assert code == 2 and not said and below(photos / "out") == OURS
    one_line(err, "s.tif page 1", "8 bits")


def test_ids_above_8_bits_are_a_tiff_of_16(tmp_path):
    form, file = Form(("mask",), tuple(map(str, range(300)))), Listed(tmp_path / "a.png", "a.png")
    labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
    with opened(tmp_path, file, form, 1) as files:
        files.add(Found(np.zeros((15, 20, 3), np.uint8), labels=labels), 0)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a_mask.tif")), labels)


def test_what_goes_wrong_leaves_no_file(tmp_path):
    form, file = Form(("mask", "polygons"), ("a", "b")), Listed(tmp_path / "a.png", "a.png")
    (tmp_path / "a_mask.png").write_text("of before")
    with pytest.raises(RuntimeError), opened(tmp_path, file, form, 1) as files:
        files.add(Found(np.zeros((2, 2, 3), np.uint8), labels=np.ones((2, 2), np.uint8)), 0)
        raise RuntimeError
    assert below(tmp_path) == ["a_mask.png"]
    assert (tmp_path / "a_mask.png").read_text() == "of before"


def test_nothing_is_done_twice(finished, photos, call, seen):
    flags = ("predict", photos, "--run", finished, "--out", photos / "out")
    (photos / "b.jpg").rename(photos.parent / "b.jpg")
    assert call(*flags)[0] == 0 and len(seen) == 3
    (photos.parent / "b.jpg").rename(photos / "b.jpg")  # a new one
    code, said, err = call(*flags, "--memory", "1")
    assert code == 0 and len(seen) == 4 and "b_mask.png" in said and len(said.split()) == 2
    assert err.splitlines()[-1].endswith("done before: 3")
    (photos / "out" / "a_overlay.png").unlink()
    photo(photos / "sub" / "c.png", (34, 40))  # changed since
    code, said, _ = call(*flags)
    assert code == 0 and seen[4:] == [(33, 40), (34, 40)]
    assert np.array(Image.open(photos / "out" / "sub" / "c_mask.png")).shape == (34, 40)
    code, said, _ = call(*flags)
    assert code == 0 and len(seen) == 6 and not said


def test_a_line_that_was_cut_off_does_not_count(finished, photos, call, seen):
    flags = ("predict", photos, "--run", finished, "--out", photos / "out")
    assert call(*flags)[0] == 0
    lines = photos / "out" / "predictions-0.jsonl"
    text = lines.read_text()
    lines.write_text(text[:-20])
    (photos / "out" / "predictions-7.jsonl").write_text('{"name": 1}\n[\n')  # another host's
    assert call(*flags)[0] == 0 and len(seen) == 5
    assert lines.read_text() == text and "predictions-7.jsonl" not in below(photos / "out")


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_after_the_image_and_the_rest_is_done_later(
    number, finished, photos, call, seen, monkeypatch
):
    flags, write = (
        ("predict", photos, "--run", finished, "--out", photos / "out"),
        predictions.write,
    )

    def signalled(*args):
        write(*args)
        if len(seen) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(predictions, "write", signalled)
    code, said, err = call(*flags)
    assert code == 128 + number and len(seen) == 2 and len(said.split()) == 4
    assert "2 of 4 images are done; the same command goes on" in err
    assert call(*flags)[0] == 0 and len(seen) == 4


def test_predict_turns_as_the_run_is_scored(finished, photos, call, tmp_path):
    turned = tmp_path / "turned"
    shutil.copytree(finished, turned)
    written = json.loads((turned / "experiment.json").read_text())
    (turned / "experiment.json").write_text(json.dumps(written | {"tta": ["flip", "rotate90"]}))
    made = {}
    for name, *flags in (
        ("as scored", turned), ("none", turned, "--tta"),
        ("asked", finished, "--tta", "flip", "rotate90"), ("plain", finished),
    ):  # fmt: skip
        out = tmp_path / name
        code = call("predict", photos, "--run", *flags, "--out", out, "--write", "probabilities")[0]
        assert code == 0
        made[name] = np.load(next(out.rglob("*.npz")))["probabilities"]
    np.testing.assert_array_equal(made["as scored"], made["asked"])
    np.testing.assert_array_equal(made["none"], made["plain"])
    assert (made["asked"] != made["plain"]).any()


def test_a_folder_of_other_predictions_is_refused(finished, photos, call, seen, tmp_path):
    flags = ("predict", photos, "--run", finished, "--out", photos / "out")
    assert call(*flags)[0] == 0
    before = [(path, (photos / "out" / path).read_bytes()) for path in below(photos / "out")]
    for more, words in (
        (("--tta", "flip"), ("of other --tta:", "another --out")),
        (("--write", "mask", "--tile", "16"), ("--tile, --write",)),
    ):
        code, _, err = call(*flags, *more)
        assert code == 2
        one_line(err, *words)
    other = tmp_path / "run"
    shutil.copytree(finished, other)
    shutil.rmtree(other / "checkpoints" / "8")  # an earlier step of the same run
    code, _, err = call("predict", photos, "--run", other, "--out", photos / "out")
    assert code == 2
    one_line(err, "another run, or one that was trained on")
    photo(tmp_path / "else" / "a.png")
    code, _, err = call("predict", tmp_path / "else", *flags[2:])
    assert code == 2
    one_line(err, "would take their place")
    (photos / "out" / "predictions.json").write_text("{")
    code, _, err = call(*flags)
    assert code == 2
    one_line(err, "predictions.json cannot be read")
    assert len(seen) == 4
    now = [(path, (photos / "out" / path).read_bytes()) for path in below(photos / "out")]
    assert [a for a, b in zip(now, before, strict=True) if a != b] == [("predictions.json", b"{")]


def test_files_of_others_are_not_written_over(finished, photos, call):
    masks = photo(photos / "masks" / "sub" / "c_mask.png")
    before = masks.read_bytes()
    code, _, err = call(
        "predict", photos, "--run", finished, "--out", photos / "masks", "--write", "mask"
    )
    assert code == 2 and masks.read_bytes() == before
    one_line(err, "c_mask.png is there", "did not begin")
    assert below(photos / "masks") == ["sub/c_mask.png"]


def test_bad_images_are_named_at_the_end_and_the_rest_is_done(finished, photos, call):
    flags = ("predict", photos, "--run", finished, "--out", photos / "out", "--write", "mask")
    (photos / "a.png").write_bytes(b"no")
    photo(photos / f"{'x' * 248}.png")
    code, said, err = call(*flags)
    assert code == 2 and len(said.split()) == 3
    one_line(err, "2 of 5 images could not be predicted", "the others are done")
    assert "a.png: cannot be read" in err and "its name is too long" in err
    photo(photos / "a.png")
    (photos / f"{'x' * 248}.png").unlink()
    code, said, _ = call(*flags)
    assert code == 0 and said.split() == [str(photos / "out" / "a_mask.png")]


def test_a_disk_that_is_full_ends_it(finished, photos, call, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Files, "add", full)
    code, said, err = call("predict", photos, "--run", finished, "--out", photos / "out")
    assert code == 2 and not said
    one_line(err, "No space left", "it goes on")


def test_objects_are_written_in_every_form(detecting, photos, call):
    out, kinds = photos / "out", ("coco", "voc", "polygons", "overlay")
    flags = ("predict", photos, "--run", detecting, "--threshold", "0.1", "--out", out)
    assert call(*flags, "--write", *kinds)[0] == 0
    experiment = load(detecting)
    names = experiment.task.names(experiment.data.classes)
    for by in ("detections", "masks"):
        entries = coco_results.read(out / f"{by}.json")
        assert [entry["file_name"] for entry in entries] == sorted(
            (entry["file_name"] for entry in entries), key="a.png b.jpg sub/a.png sub/c.png".find
        )
        assert {entry["image_id"] for entry in entries} <= {1, 2, 3, 4} and entries
        coco_results.found(entries, tuple(range(1, len(names) + 1)))
    shown = [e for e in coco_results.read(out / "detections.json") if e["score"] >= 0.1]
    one = [entry for entry in shown if entry["file_name"] == "sub/c.png"]
    size, objects = _xml(out / "sub" / "c.xml")
    assert size == (33, 40) and [thing.name for thing in objects] == [e["category"] for e in one]
    for thing, entry in zip(objects, one, strict=True):
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose(thing.box, (y, x, y + height, x + width), atol=1.01)
    features = json.loads((out / "sub" / "c_polygons.geojson").read_text())["features"]
    assert [f["properties"]["class"] for f in features] == [e["category"] for e in one]
    assert np.array(Image.open(out / "a_overlay.png")).shape == (33, 40, 3)


def test_results_of_all_images_are_joined_whenever_they_were_found(detecting, photos, call, seen):
    flags = ("predict", photos, "--run", detecting)
    assert call(*flags, "--out", photos / "at_once")[0] == 0
    (photos / "a.png").rename(photos.parent / "a.png")
    assert call(*flags, "--out", photos / "twice")[0] == 0
    (photos.parent / "a.png").rename(photos / "a.png")
    assert call(*flags, "--out", photos / "twice")[0] == 0 and len(seen) == 8
    for name in ("detections.json", "masks.json"):
        assert (photos / "at_once" / name).read_text() == (photos / "twice" / name).read_text()


@pytest.mark.parametrize(
    "kinds, flags, words",
    [
        (("coco",), (), "this run gives mask, overlay, probabilities, polygons; wanted was coco"),
        ((), ("--scales", "0"), "scales wants one or more positive numbers"),
        ((), ("--memory", "0"), "memory wants GiB above 0"),
        ((), ("--tile", "-1"), "tile wants a number of pixels"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    kinds, flags, words, finished, photos, call
):
    wanted = ("--write", *kinds) if kinds else ()
    code, _, err = call(
        "predict", photos, "--run", finished, "--out", photos / "out", *wanted, *flags
    )
    assert code == 2 and not (photos / "out").exists()
    one_line(err, words)


def test_a_task_gives_what_it_has(tiny, detector):
    def asked(experiment, *kinds, **more):
        from pathlib import Path

        return predictions.form_of(
            experiment, predictions.Predict((), Path("run"), write=kinds, **more)
        )

    assert asked(tiny()).kinds == ("mask", "overlay")
    assert asked(detector("masks")).kinds == ("coco", "overlay")
    assert asked(detector("masks"), "polygons").kinds == ("polygons",)
    for experiment, kind in ((detector("retinanet"), "polygons"), (detector("rcnn"), "mask")):
        with pytest.raises(InputError, match=f"wanted was {kind}"):
            asked(experiment, kind)
    with pytest.raises(InputError, match="--tiff: leave them out"):
        asked(detector("rcnn"), tiff=True)
    several = dataclasses.replace(tiny(), task=encdec.Segment(8, mode="multilabel"))
    with pytest.raises(InputError, match="gives probabilities; wanted was mask, overlay"):
        asked(several)


def test_all_that_may_be_written_is_known_beforehand(tmp_path):
    form = Form(("mask", "overlay", "coco"), ("a",))
    found = {path.name for path in targets(tmp_path, Listed(tmp_path / "x.png", "x.png"), form)}
    assert found == {
        "x_mask.png", "x_mask.tif", "x_overlay.png", "x_overlay.tif", "detections.json",
        "masks.json",
    }  # fmt: skip
