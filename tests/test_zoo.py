"""The models in zoo/: whole, small, of data whose licence allows it, and they predict."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encdec import weights
from encdec.evaluate import evaluate, evaluator
from encdec.experiment import load_run

ZOO = Path(__file__).parents[1] / "zoo"
MODELS = sorted(path.parent for path in ZOO.glob("*/model.json"))


def card(folder):
    """The scores of a model's card, by name."""
    text = (folder / "README.md").read_text()
    return {
        name: float(x) for name, x in re.findall(r"^\| (\w+) \(\w+\) \| ([\d.]+) \|$", text, re.M)
    }


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_is_whole_and_the_page_has_its_scores_and_its_licence(folder):
    weights.open(folder)  # every digest is checked
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    page = (ZOO / "README.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| [{folder.name}]")]
    shown, scores = re.findall(r"\b0\.\d{3}\b", row), card(folder).values()
    assert shown
    for score in map(float, shown):  # of three digits; the card's have four
        assert min(abs(score - other) for other in scores) < 6e-4, score
    assert re.search("CC0|CC BY 4.0|MIT", row)


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_predicts_at_once(folder, tmp_path, call):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    out = tmp_path / "out"
    code, _, err = call("predict", tmp_path / "image.png", "--model", folder, "--out", out)
    assert code == 0, err
    assert (out / "image_overlay.png").is_file()


@pytest.mark.slow
@pytest.mark.skipif("ENCDEC_DATA" not in os.environ, reason="real data: set ENCDEC_DATA")
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_scores_what_its_card_says(folder):
    experiment, variables = load_run(folder)
    scores = evaluate(experiment, variables, evaluator(experiment))
    said = card(folder)
    assert said and {name: scores[name] for name in said} == pytest.approx(said, abs=2e-3)
