import json

import pytest
from PIL import Image

from encdec import papers
from encdec.experiment import to_json
from encdec.figures.command import NETWORKS


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_paper_s_network_by_name_as_svg_and_png(here, call):
    code, out, err = call("draw", "unet")
    assert code == 0 and out.split() == ["unet.svg", "unet.png"] and "Traceback" not in err
    svg = (here / "unet.svg").read_text("utf-8")
    assert all(f">{text}<" in svg for text in ("388×388", "568×568", "512 + 512", "copy, crop"))
    assert Image.open(here / "unet.png").width > 1000


def test_any_field_of_the_network_is_a_flag(here, call):
    flags = ("--model.decoder.merge", "concatenate", "--model.decoder.channels", "8")
    more = ("--size", "64", "96", "--channels", "1", "--title", "a<b", "--theme", "dark")
    code, out, _ = call("draw", "semantic_fpn", *flags, *more, "--out", "new/a.svg")
    svg = (here / "new" / "a.svg").read_text("utf-8")
    assert code == 0 and out.split() == ["new/a.svg"]
    assert all(f">{text}<" in svg for text in ("8 + 8", "8 + 16", "a&lt;b", "64×96×1"))
    assert "prefers-color-scheme" not in svg


def test_a_run_and_a_script_draw_their_own(tiny, here, call):
    (here / "run").mkdir()
    (here / "run" / "experiment.json").write_text(json.dumps(to_json(tiny())))
    assert call("draw", "--run", "run")[1].split() == ["run.svg", "run.png"]
    code, out, _ = call("draw", "--out", "b.svg", "--plain", experiment=tiny())
    assert code == 0 and out.split() == ["b.svg"]
    assert "stride" in (here / "run.svg").read_text()
    assert "stride" not in (here / "b.svg").read_text()


@pytest.mark.parametrize(
    "args, words",
    [
        ((), ("wanted one of", "unet", "--run", "got nothing")),
        (("fcn8",), ("perhaps fcn8s was meant", "experiments/NAME.py draw")),
        (("smp_unet",), ("wanted one of", "got smp_unet")),
        (("unet", "--out", "a.pdf"), ("--out", "a.pdf")),
        (("unet", "--size", "0", "9"), ("--size", "0x9")),
        (("unet", "--model.decoder.merge", "glue"), ("glue", "concatenate")),
        (("unet", "--theme", "dim"), ("dim", "light")),
        (("unet", "--model.head.classes", "0"), ("classes", "0")),
        (("--run", "none"), ("none", "run folder")),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(args, words, here, call):
    code, _, err = call("draw", *args)
    lines = err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and all(word in lines[0] for word in words), err
    assert not list(here.iterdir())


def test_help_lists_the_networks_and_their_flags(here, call):
    code, out, _ = call("draw", "--help")
    assert code == 0 and all(name in out for name in NETWORKS)
    code, out, _ = call("draw", "unet", "--help")
    assert code == 0 and "--model.decoder.merge" in out and "--theme" in out


def test_networks_are_those_that_need_not_be_told_anything():
    assert {"fcn8s", "unet", "fpn_rpn", "ssd300", "retinanet", "dilated_fcn"} <= set(NETWORKS)
    assert not {"fcn", "smp_unet", "smp_fpn", "pyramid", "rpn", "crops"} & set(NETWORKS)
    assert all(hasattr(papers, name) for name in NETWORKS)
