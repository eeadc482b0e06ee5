"""Nothing that is read runs code, leads elsewhere or fills the memory; pages escape all text."""

import ast
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import encdec
from encdec import markup, page, page_comparison, visualize
from encdec.data import builders, coco, folders, voc
from encdec.data.detection import COCODetection, VOCDetection
from encdec.data.listing import Listed, listed
from encdec.data.pipeline import opened
from encdec.errors import InputError, visible
from encdec.experiment import from_json, load
from encdec.outputs import Form, Found, check_targets
from encdec.outputs import opened as opened_files
from encdec.weights.files import MOST, read

ROOT = Path(encdec.__file__).parents[1]
SOURCES = sorted([*ROOT.glob("encdec/**/*.py"), *ROOT.glob("experiments/*.py")])

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
UNSAFE_MODULES |= {"marshal", "yaml", "tarfile", "torch", "runpy", "code", "imp", "numexpr"}
"""Of these none is imported: they run what they read, or, tarfile, write where they read."""

UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "execfile", "system", "popen"}
UNSAFE_CALLS |= {"extractall", "extract", "unpack_archive", "fromregex", "memmap"}
"""`re.compile` and `.lower().compile()` of jax are other things: only a bare name counts for it."""


def calls(tree: ast.AST) -> list[tuple[str, ast.Call, bool]]:
    """Name, call and whether the name stands alone."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", "")
            found.append((name, node, isinstance(function, ast.Name)))
    return found


def unsafe(text: str) -> list[str]:
    """Lines of a program's text that run what they read."""
    tree, found = ast.parse(text), []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES]
    for name, call, alone in calls(tree):
        options = {option.arg: option.value for option in call.keywords}
        if name in UNSAFE_CALLS and (alone or name != "compile"):
            found.append(f"{name}(")
        for option in ("shell", "allow_pickle", "trust_remote_code"):
            if option in options and getattr(options[option], "value", True) is not False:
                found.append(f"{option}=")
        loads = isinstance(call.func, ast.Attribute) and name == "load"
        if loads and getattr(call.func.value, "id", "") in ("np", "numpy", "jnp"):
            if "allow_pickle" not in options:
                found.append("np.load without allow_pickle")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_file_of_ours_can_run_what_it_reads(path):
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from yaml import load",
        "import torch.utils",
        "import tarfile",
        "eval(text)",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "os.system(text)",
        "builtins.__import__(name)",
    ],
)
def test_the_search_finds_what_it_is_for(line):
    assert len(unsafe(line)) == 1
    assert unsafe("re.compile(text); np.load(path, allow_pickle=False)") == []


def test_one_place_imports_by_name_and_one_reads_archives():
    by_name = [p.name for p in SOURCES if "import_module" in p.read_text()]
    archives = [
        p.name for p in SOURCES if re.search(r"\bzipfile\b|\bgzip\b|\bbz2\b", p.read_text())
    ]
    assert by_name == ["experiment.py"] and archives == ["outputs.py", "files.py"]
    writer = (ROOT / "encdec" / "outputs.py").read_text()
    assert re.findall(r"ZipFile\([^,]*, ([^,)]*)", writer) == ['"w"']  # it reads none
    opens = [p.name for p in SOURCES if "Image.open(" in p.read_text()]
    assert opens == ["images.py"]


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("suffix", ["npz", "npy", "pth", "pkl", "safetensors", "h5"])
def test_no_file_of_weights_is_unpickled(tmp_path, suffix):
    path, mark = tmp_path / f"a.{suffix}", tmp_path / "mark"
    if suffix == "npz":
        np.savez(path, a=np.array([Bomb(mark)], dtype=object))
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError) as caught:
        read(path)
    assert not mark.exists() and "\n" not in str(caught.value)


def npy(shape: str, size: int = 8) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(size)


@pytest.mark.parametrize(
    "names",
    [("../out.npy",), ("/tmp/out.npy",), ("a/../../out.npy",), ("C:\\out.npy",), ("\x1b[2J.npy",)],
)
def test_names_in_an_archive_are_names_of_arrays_alone(tmp_path, names):
    before = set(tmp_path.parent.iterdir())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in names:
            archive.writestr(name, npy("(1,)"))
    assert [a.shape for a in read(tmp_path / "a.npz").values()] == [(1,)]
    assert set(tmp_path.parent.iterdir()) == before and len(list(tmp_path.iterdir())) == 1


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("a.npy")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


def zeros(archive: zipfile.ZipFile) -> None:
    """10 GB in some bytes, as the archive says it."""
    archive.writestr("a.npy", npy("(1250000000,)"))
    archive.infolist()[0].file_size = 10 * 10**9


def many(archive: zipfile.ZipFile) -> None:
    for number in range(MOST + 1):
        archive.writestr(f"{number}.npy", b"")


@pytest.mark.parametrize(
    "fill, reason",
    [
        (link, "no array of numbers"),
        (zeros, "at most .* bytes together"),
        (many, "at most 10,000 arrays"),
        (lambda a: a.writestr("a.npy", npy("(10**15,)".replace("10**15", str(10**15)))), "damaged"),
        (lambda a: a.writestr("a.npy", npy("(-1,)")), "damaged"),
        (lambda a: a.writestr("a.txt", b"text"), "no array of numbers"),
        (lambda a: a.writestr("a.npy", npy("(1,)").replace(b"<f8", b"<U2")), "no array of numbers"),
    ],
    ids=["link", "zeros", "names", "lying shape", "negative shape", "text", "strings"],
)
def test_a_malicious_archive_is_refused(tmp_path, fill, reason):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        fill(archive)
    with pytest.raises(InputError, match=reason):
        read(tmp_path / "a.npz")


@pytest.mark.slow
def test_a_million_names_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(10**6):
            archive.writestr(str(number), b"")
    with pytest.raises(InputError, match="at most 10,000 arrays"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "head",
    [
        {"a": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8 * 10**12]}},
        {"a": {"dtype": "F64", "shape": [2], "data_offsets": [8, 24]}},
        {
            "a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
            "b": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
        },
        None,
    ],
    ids=["shape", "end", "start", "twice", "length"],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, head):
    text = json.dumps(head).encode() if head else b"{}"
    length = len(text) if head else 2**62
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(8))
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["external", "soft", "storage", "virtual", "text", "huge"])
def test_an_h5_that_leads_elsewhere_or_is_huge_is_refused(tmp_path, kind):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layer = file.create_group("conv")
        if kind == "external":
            layer["W"] = h5py.ExternalLink("other.h5", "x")
        elif kind == "soft":
            layer["W"] = h5py.SoftLink("/conv/W")
        elif kind == "storage":
            whole = (str(tmp_path / "other.h5"), 0, 32)
            layer.create_dataset("W", (4,), "f8", external=[whole])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4,))
            layer.create_virtual_dataset("W", layout)
        elif kind == "text":
            layer["W"] = ["a", "b"]
        else:
            layer.create_dataset("W", (10**13,), "f8", chunks=(1024,))
    with pytest.raises(InputError, match="damaged|at most"):
        read(tmp_path / "a.h5")


BOMB = """<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""
EXTERNAL = """<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<annotation><object><name>&x;</name></object></annotation>"""
PARAMETER = """<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>"""


@pytest.mark.parametrize("text", [BOMB, EXTERNAL, PARAMETER], ids=["laughs", "file", "parameter"])
def test_an_entity_in_xml_is_refused(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match="a.xml: VOC's XML .*declares an entity"):
        voc._xml(tmp_path / "a.xml")


def test_a_huge_xml_is_refused_unread(tmp_path):
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(voc.LARGEST + 1)
    with pytest.raises(InputError, match="more than 16,777,216"):
        voc._xml(tmp_path / "a.xml")


def test_a_doctype_without_entities_is_read(tmp_path):
    (tmp_path / "a.xml").write_text("<!DOCTYPE annotation><annotation/>")
    assert voc._xml(tmp_path / "a.xml") == ((0, 0), [])


@pytest.mark.parametrize("name", ["../../secret", "/etc/secret", "a/../../secret"])
def test_names_in_data_lead_to_nothing_outside_its_folder(tmp_path, name):
    for place in (tmp_path / "secret.png", tmp_path / "set" / "images" / "a.png"):
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(place)
    root = tmp_path / "set"
    (root / "annotations").mkdir()
    entry = {"id": 1, "file_name": f"{name}.png", "height": 4, "width": 4}
    content = {"images": [entry], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="leads out of it"):
        opened(COCODetection(root), "train")
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind).mkdir(parents=True)
        (root / "ImageSets" / kind / "train.txt").write_text(f"{name}\n")
    with pytest.raises(InputError, match="leads out of it"):
        opened(VOCDetection(root, names=("a",)), "train")
    with pytest.raises(InputError, match="leads out of it"):
        folders.voc(root, "train")


def test_json_that_is_deep_or_has_two_images_of_one_id_is_refused(tmp_path):
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text("[" * 200_000)
    with pytest.raises(InputError, match="RecursionError"):
        coco.categories(path)
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 4}
    path.write_text(json.dumps({"images": [image] * 2, "annotations": [], "categories": []}))
    with pytest.raises(InputError, match="two images have the same id"):
        coco.categories(path)


NAMES = ["../../a.png", "a b.png", "雪 ☃.png", "-rf.png", "a\nb.png", "$(touch x).png", ".png.png"]


def listing(tmp_path, *names):
    """Files of those names, all given by themselves."""
    return tuple(Listed(tmp_path / name, Path(name).name) for name in names)


def test_whatever_an_image_is_called_its_results_lie_in_the_folder(tmp_path):
    out = tmp_path / "out"
    found = Found(np.zeros((2, 2, 3), np.uint8), labels=np.zeros((2, 2), np.uint8))
    form = Form(("mask", "overlay", "polygons"), ("a", "b"))
    for file in listing(tmp_path, *NAMES):
        with opened_files(out, file, form, 1) as files:
            files.add(found, 0)
        for target in files.targets:
            assert target.is_file() and target.resolve().parent == out.resolve()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert len(list(out.iterdir())) == 3 * len(NAMES)  # nothing beside them is left


def test_results_never_take_the_place_of_an_image_or_of_each_other(tmp_path):
    form, both = Form(("mask",), ("a", "b")), listing(tmp_path, "a.png", "a_mask.png")
    with pytest.raises(InputError, match="a_mask.png is an image to read"):
        check_targets(both, tmp_path, form)
    check_targets(both, tmp_path / "out", form)
    with pytest.raises(InputError, match="would write one a_mask.png"):
        check_targets(listing(tmp_path, "x/a.png", "y/a.jpg"), tmp_path, form)


def test_a_glob_cannot_lead_results_out_of_the_folder(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="without '..' after its wildcard"):
        listed([tmp_path / "x" / "*" / ".." / ".." / "*.png"], tmp_path / "out")


EVIL = ["<script>alert(1)</script>", "</title><script>", '"><img src=x onerror=y>', "$\\frac$ & $$"]


@pytest.mark.parametrize("text", [*EVIL, os.fsdecode(b"\xff<script>")])
def test_a_page_shows_names_and_fields_as_text(tmp_path, text):
    image, label = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    sample = {"image": image, "label": label, "predictions": {text: label}}
    boxes = {"boxes": np.zeros((0, 4), np.float32), "classes": np.zeros(0, np.int32)}
    shared = {
        "title": text,
        "classes": (text, "b"),
        "facts": {text: text, "two": f"{text}\n{text}"},
        "settings": {text: text},
    }
    history = [{"step": 1, "loss": 0.5, "val": {"mean_iou": 0.5}}]
    scores, per_class = {text: 0.5}, {text: 0.5}
    found = {"predictions": {text: boxes | {"scores": np.zeros(0, np.float32)}}}
    sample["about"] = text
    for samples in ([sample], [{"image": image, "truth": boxes, "about": text} | found]):
        written = page.write_run(
            tmp_path / "run",
            history=history,
            scores=scores,
            per_class=per_class,
            confusion=np.eye(2, dtype=int),
            samples=samples,
            **shared,
        )
        harmless(written)
    written = page_comparison.write_comparison(
        tmp_path / "both",
        intro=text,
        command=text,
        rows=[{"model": text, "mean IoU": 0.5, text: text}],
        histories={text: history},
        per_class={text: per_class, "b": per_class},
        confusions={text: np.eye(2, dtype=int)},
        changes=[{"flag": text, text: text}],
        samples=[sample],
        **shared,
    )
    harmless(written)


def harmless(path: Path) -> None:
    text = path.read_text("utf-8")
    body = text[text.index("<title>") :]
    assert body.count("</title>") == 1 + body.count("<svg") * 0
    assert not re.search(r"<script|<img src=x|onerror=y>[^<]*$|javascript:", body.split("<svg")[0])
    assert "<script" not in body and "<img src=x" not in body


def test_drawn_names_are_not_read_as_formulas():
    figure = visualize.curves({"loss": {"$\\bad{$": [(0.0, 1.0), (1.0, 2.0)]}}, key=True)
    figure.savefig(io.BytesIO())
    assert "<svg" in markup.charts({"$\\bad{$": {"a": [(0.0, 1.0), (1.0, 2.0)]}})


@pytest.mark.parametrize(
    "kind",
    [
        *("os:system", "subprocess:Popen", "script:Evil", "encdec.experiment:importlib"),
        *("encdec.experiment:nn.Module", "encdec.experiment:load", "encdec.data.folders:Path"),
        *("encdec..evil:X", "encdec.:X", "encdec.\0:X", ":", "", "encdec./tmp/evil:X"),
        *("encdec.train.loop:jax", "flax.linen:Dense", "encdec.checkpoint:ocp"),
    ],
)
def test_only_encdecs_own_classes_are_made(kind):
    with pytest.raises(InputError, match="wanted a class of encdec|changed since"):
        from_json({"is": kind})


def test_a_run_folder_runs_nothing_that_it_holds(tmp_path, monkeypatch):
    """Its script, modules with the names of packages, and classes that its experiment names.

    Not even where Python looks for modules in it, as `python -m encdec…` does in the folder.
    """
    monkeypatch.syspath_prepend(tmp_path)
    code = f"open({str(tmp_path / 'mark')!r}, 'w').close()\nclass Evil: pass\n"
    for name in ("script.py", "evil.py", "json.py", "numpy.py", "sitecustomize.py", "encdec/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    for kind in ("script:Evil", "evil:Evil", "encdec.e:Evil", "encdec..evil:Evil"):
        (tmp_path / "experiment.json").write_text(json.dumps({"is": kind}))
        with pytest.raises(InputError):
            load(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["huggingface:evil", "kaggle:a/b", "ns:set/config:1.0.0"])
def test_a_communitys_sets_are_refused(name):
    with pytest.raises(InputError, match="a community's code"):
        builders.named(name, None)


def test_what_a_message_quotes_cannot_move_the_cursor():
    assert visible("a\nb\r\x1b[2J\u202e\udcff ü雪") == "a\\nb\\r\\x1b[2J\\u202e\\udcff ü雪"
    assert str(InputError("x\ny")) == "x\\ny"


FAKE = """
import sys, types
if {blocked}:
    sys.modules["cv2"] = None
else:
    import cv2
import numpy as np, tempfile, io
from pathlib import Path
from PIL import Image
import tensorflow_datasets as tfds
from encdec.data import builders, folders
ids = np.tile((np.arange(20) % 3).astype(np.uint8), (12, 1))
def png(image):
    file = io.BytesIO(); image.save(file, "PNG"); return file.getvalue()
palette = Image.fromarray(ids); palette.putpalette([7 * i % 256 for i in range(768)])
picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8))
class Palettes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    __module__ = "encdec.data.builders"  # TFDS reads files beside it
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        kinds = dict(image=tfds.features.Image(shape=(12, 20, 3), encoding_format="png"),
                     label=tfds.features.Image(shape=(12, 20, 1), encoding_format="png"))
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(kinds))
    def _split_generators(self, manager):
        return {{"train": self._generate_examples()}}
    def _generate_examples(self):
        yield 0, {{"image": png(picture), "label": png(palette)}}
with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    for kind, made in (("images", picture), ("masks", palette)):
        (root / "train" / kind).mkdir(parents=True)
        made.save(root / "train" / kind / "a.png")
    one = folders.pairs(root, "train", val=0.2, binary=False)[0]
    builder = Palettes(data_dir=root / "tfds")
    with builders._quiet():
        builder.download_and_prepare(file_format="array_record")
    two = builders.Records(builder, "train", {{"image": "image", "label": "label"}})[0]
    three = builders.Records(builders.shapes(root, size=16, counts=(1, 1, 1), seed=0), "train")[0]
import hashlib
assert (sys.modules.get("cv2") is None) == {blocked}
for example in (one, two, three):
    for key in sorted(example):
        print(key, hashlib.sha256(np.ascontiguousarray(example[key]).tobytes()).hexdigest())
assert (one["label"] == ids).all() and (two["label"] == ids).all()
"""


def test_images_and_masks_are_the_same_with_opencv_and_without(tmp_path):
    pytest.importorskip("cv2")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    for blocked in (True, False):  # TFDS wants to know the file of a class
        (tmp_path / f"{blocked}.py").write_text(FAKE.format(blocked=blocked))
    running = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / f"{blocked}.py")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for blocked in (True, False)
    ]
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert said[0][0] == said[1][0] and said[0][0].count("\n") > 5


def test_every_dependency_has_a_floor_and_it_is_met():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    for line in wanted:
        name, _, rest = line.partition(">=")
        assert rest, f"{line} has no floor"
        floor = tuple(int(n) for n in re.match(r"[\d.]+", rest)[0].split("."))
        installed = re.match(r"[\d.]+", version(name))[0].rstrip(".")
        assert tuple(int(n) for n in installed.split(".")) >= floor, f"{line}; {installed} is here"


def test_files_that_are_written_open_again(tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors")["a"].tolist() == [1, 1, 1]
