"""The pages in a real browser: headless Chromium, where there is one."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from encdec import page, page_comparison

CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
CLASSES = tuple(f"a rather long name of class {i}" for i in range(12))
HISTORY = [
    {"step": i, "loss": 1 / i, "rate": 0.1, "val": {"mean_iou": i / 10, "boundary_f": i / 20}}
    for i in range(1, 9)
]
SETTINGS = {"every field": '{"' + "x" * 400 + '": 1}\n'}


def sample(names):
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 12, (6, 8)), np.ones((16, 16))).astype(np.uint8)
    image = rng.integers(0, 255, (96, 128, 3), np.uint8)
    return {"image": image, "label": label, "predictions": dict.fromkeys(names, label)}


def one(folder):
    return page.write_run(
        folder,
        title="A run",
        history=HISTORY,
        scores={"mean_iou": 0.5, "frequency_weighted_iou": 0.75, "boundary_f": 0.1},
        per_class={name: i / 12 for i, name in enumerate(CLASSES)},
        confusion=np.eye(12, dtype=int) * 7 + 1,
        samples=[sample(["predicted"])],
        classes=CLASSES,
        facts={"command": "x" * 300, "machine": "2 cores"},
        settings=SETTINGS,
    )


def several(folder):
    names = [f"model {i}" for i in range(5)]
    return page_comparison.write_comparison(
        folder,
        title="Several runs",
        intro="All of them.",
        command="encdec compare " + "runs/x " * 60,
        rows=[{"model": name, "a rather wide column": 7, "mean IoU": 0.5} for name in names],
        histories=dict.fromkeys(names, HISTORY),
        per_class=dict.fromkeys(names, {name: i / 12 for i, name in enumerate(CLASSES)}),
        confusions=dict.fromkeys(names, np.eye(12, dtype=int)),
        samples=[sample(names)],
        classes=CLASSES,
        facts={"machine": "2 cores"},
        settings=dict.fromkeys(names, SETTINGS["every field"]),
        changes=[{"flag": "--model.decoder"} | dict.fromkeys(names, "FPN")],
    )


def opened(path, width, dark, *what):
    """What Chromium prints of the page, and says on its console."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    flags += ["--blink-settings=preferredColorScheme=0"] * dark
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *flags, profile, f"--window-size={width},1600", *what, path.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return said.stdout, [line for line in said.stderr.splitlines() if "CONSOLE" in line]


def looks_right(write, width, dark, tmp_path):
    path, shot = write(tmp_path), tmp_path / "shot.png"
    # A frame has a telephone's width, which a window has not: the script in it measures the page.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe id=f width={width} height=900 src=report.html></iframe><script>onload=()=>{{"
        "const d=f.contentDocument,m=d.documentElement;document.title=[m.scrollWidth,"
        "[...d.images].every(i=>i.complete&&i.naturalWidth>0),"
        "[...d.querySelectorAll('svg')].length]}</script>"
    )
    printed, told = opened(frame, 1400, dark, "--dump-dom", "--allow-file-access-from-files")
    measured = re.search("<title>([^<]*)", printed)[1].split(",")
    assert not told
    assert int(measured[0]) <= width, "it scrolls sideways"
    assert measured[1] == "true" and int(measured[2]) >= 2, "a picture or a curve is missing"
    _, told = opened(path, max(width, 500), dark, f"--screenshot={shot}")
    assert not told
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"), int)
    paper = pixels[5, 5]
    assert (paper < 60) if dark else (paper > 230)
    assert (abs(pixels - paper) > 100).mean() > 0.01, "there is no ink"


def test_a_sample_page_looks_right_on_a_dark_telephone(tmp_path):
    looks_right(one, 390, True, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("write", [one, several])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_look_right(write, width, dark, tmp_path):
    looks_right(write, width, dark, tmp_path)
