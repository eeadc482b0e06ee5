"""encdec import-weights, encdec export-weights."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from flax import linen as nn

import encdec
from encdec import papers, weights
from encdec.anchors import pyramid
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.experiment import Experiment, load
from encdec.flags import nearest, parse
from encdec.geometry import next_good_size
from encdec.heads.dense import rpn
from encdec.model import EncoderDecoder
from encdec.random import initial_key
from encdec.records import placeless
from encdec.report import history
from encdec.train.folder import facts
from encdec.train.loop import variables_of
from encdec.weights.artefact import CARD, EXPERIMENT, check_new, is_artefact, portable
from encdec.weights.networks import FAMILIES, Source
from encdec.weights.published import below, part_of

TORCHVISION = ResNet(papers.BOTTLENECKS[50], "bottleneck", epsilon=0.0)
"""The trunk of its detectors, as it is with weights trained on COCO."""


def two_stage(classes: int, mask: bool) -> EncoderDecoder:
    """torchvision's, whose anchors are rounded and whose regions are aligned."""
    model = papers.fpn_fast_rcnn(classes, TORCHVISION, mask)
    head = model.head.clone(rpn=rpn(pyramid(rounded=True)), pool="align")
    return model.clone(head=head)


WHOLE: dict[str, Callable[..., nn.Module]] = {
    "vgg16_fc": lambda classes: papers.VGG16,
    "fcn32s": partial(papers.fcn32s, upsampling="learned"),
    "fcn16s": partial(papers.fcn16s, upsampling="learned"),
    "fcn8s": partial(papers.fcn8s, upsampling="learned"),
    "fcn8s_at_once": partial(papers.fcn8s_at_once, upsampling="learned"),
    "fcn_alexnet": partial(papers.fcn_alexnet, upsampling="learned"),
    "fcn_resnet50": partial(papers.dilated_fcn, depth=50),
    "fcn_resnet101": partial(papers.dilated_fcn, depth=101),
    "retina_unet": papers.retina_unet,
    "retinanet_resnet50_fpn": partial(papers.retinanet, encoder=TORCHVISION),
    "ssd300_vgg16": papers.ssd300,
    "fasterrcnn_resnet50_fpn": partial(two_stage, mask=False),
    "maskrcnn_resnet50_fpn": partial(two_stage, mask=True),
    "smp_unet": papers.smp_unet,
    "smp_unet_scse": partial(papers.smp_unet, attention=True),
    "smp_fpn": papers.smp_fpn,
}
"""Whole networks, by name; those of smp on an encoder. vgg16_fc is a classifier's trunk with fc6
and fc7, from which FCN starts."""


@dataclass(frozen=True)
class Import:
    """Published weights -> a folder of ours: parameters, model, card.

    Attributes:
      file: .safetensors, .npz or .h5; what is pickled is refused.
      network: an encoder (resnet50, mobilenet_v2, …) or a whole network (fcn8s, fcn_resnet50,
        retina_unet, smp_unet, smp_unet_scse, smp_fpn, retinanet_resnet50_fpn,
        fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn, ssd300_vgg16).
      source: whose names and layout the file has.
      out: the folder to write.
      encoder: of smp_unet and smp_fpn.
      classes: of a whole network.
      channels: of the images.
      keep: parts that stay as they are drawn, such as head/score for other classes.
    """

    file: tyro.conf.Positional[Path]
    network: str
    source: Source
    out: Path
    encoder: str = "resnet34"
    classes: int = 21
    channels: int = 3
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """A run's newest weights, or a folder of weights -> such a folder, or another library's file.

    Attributes:
      run: folder of a run or of weights.
      out: a folder; or, with --source, a file .safetensors.
      source: whose names and layout to write.
      part: encoder, decoder or head alone; the card is still the whole run's.
    """

    run: Path
    out: Path
    source: Source | None = None
    part: str = ""


def import_command(args: list[str]) -> None:
    """import-weights: published weights -> a folder of weights, for --start."""
    asked = parse(Import, args, prog="encdec import-weights")
    check_new(asked.out)
    model = network(asked.network, asked.encoder, asked.classes)
    model, variables = weights.load(
        asked.file,
        model,
        initial(model, asked.channels),
        source=asked.source,
        keep=asked.keep,
        report=print,
    )
    command = f"encdec import-weights {shlex.join(args)}"
    weights.save(asked.out, model, variables, card=_card(asked.network, {"command": command}))
    print(asked.out)


def export_command(args: list[str]) -> None:
    """export-weights: a run or a folder of weights -> a folder, or another library's file."""
    asked = parse(Export, args, prog="encdec export-weights")
    if asked.source is None and asked.out.suffix == ".safetensors":
        raise InputError(f"a file, {asked.out}, wants --source; without one a folder is written")
    experiment = None
    if is_artefact(asked.run):
        model, variables = weights.open(asked.run)
        card = asked.run / CARD
        card = card.read_text(errors="replace") if card.is_file() else ""
        if (asked.run / EXPERIMENT).is_file():
            experiment = load(asked.run)
    else:
        experiment = load(asked.run)
        model, variables = experiment.model, variables_of(experiment, asked.run)
        card = card_of(experiment, asked.run)
    if asked.source:
        weights.export(asked.out, model, variables, source=asked.source, part=asked.part)
    else:
        model, variables = part_of(model, asked.part), below(variables, asked.part)
        whole = experiment if not asked.part else None
        weights.save(asked.out, model, variables, card=card, experiment=whole)
    print(asked.out)


def encoders() -> dict[str, Callable[[], nn.Module]]:
    """Every encoder of the package that published weights are known for, by name."""
    every = {name: getattr(encdec, name) for name in encdec.__all__ if name.islower()}
    found = {
        name: make
        for name, make in every.items()
        if callable(make) and getattr(make, "__annotations__", {}).get("return") in FAMILIES
    }
    return found | {
        f"{name}_bn": partial(make, norm="batch")
        for name, make in found.items()
        if name.startswith("vgg")
    }


def network(name: str, encoder: str = "resnet34", classes: int = 21) -> nn.Module:
    """An encoder or a whole network, by name.

    Raises:
      InputError: there is none.
    """
    known = encoders()
    if name in known:
        return known[name]()
    if name not in WHOLE:
        words = [*known, *WHOLE]
        raise InputError(f"wanted one of {', '.join(words)}; got {name!r}{nearest(name, words)}")
    if not name.startswith("smp_"):
        return WHOLE[name](classes=classes)
    if encoder not in known:
        hint = nearest(encoder, known)
        raise InputError(f"--encoder wants one of {', '.join(known)}; got {encoder!r}{hint}")
    return WHOLE[name](classes=classes, encoder=known[encoder]())


def initial(model: nn.Module, channels: int) -> Any:
    """Variables of a network or an encoder for images of so many channels.

    Raises:
      InputError: channels below 1.
    """
    if channels < 1:
        raise InputError(f"--channels wants 1 or more; got {channels}")
    whole = isinstance(model, EncoderDecoder)
    size = next_good_size(model, (64, 64)) if whole else (64, 64)
    image = jnp.zeros((1, *size, channels))
    return jax.jit(partial(model.init, train=False))(initial_key(0), image)


def card_of(experiment: Experiment, run: Path) -> str:
    """What a run's weights are: data, command, numbers."""
    lines = [line["val"] for line in history(run) if "val" in line]
    scores = lines[-1] if lines else {}
    numbers = {
        f"{name} ({experiment.data.split})": f"{value:.4f}"
        for name, value in scores.items()
        if not name.startswith("iou/")
    }
    data = portable(experiment).data
    about = {"scored on": f"{data}", "classes": ", ".join(data.classes)}
    if experiment.tta:
        about["mean over the turns"] = ", ".join(experiment.tta)
    machine = facts(run)
    if "command" in machine:
        machine["command"] = placeless(machine["command"])
    predict = "```sh\nencdec predict image.png --model FOLDER\n```\n\n"
    return _card(run.name, about | machine | numbers, predict)


def _card(title: str, about: dict[str, str], predict: str = "") -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in about.items())
    how = f"{predict}```python\nmodel, variables = encdec.weights.open(FOLDER)\n```"
    return f"# {title}\n\n{how}\n\n| what | |\n| --- | --- |\n{rows}\n"
