"""encdec draw."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encdec import papers
from encdec.errors import InputError
from encdec.experiment import Experiment, load, title
from encdec.figures.draw import draw
from encdec.figures.drawing import Theme
from encdec.flags import nearest, parse
from encdec.model import EncoderDecoder

NETWORKS: dict[str, Callable[[], EncoderDecoder]] = {
    name: build
    for name, build in vars(papers).items()
    if inspect.isfunction(build)
    and build.__module__ == papers.__name__
    and all(p.default is not p.empty for p in inspect.signature(build).parameters.values())
}
"""Those of `encdec.papers` that need not be told an encoder or anything else."""

SIDES = {"unet": 572, "unet_released": 572, "ssd300": 300}
"""Of the images in their papers; those of the others may have any size."""


@dataclass(frozen=True)
class Figure:
    """The figure of a network; every field of it is a flag: `--model.decoder.merge concatenate`.

    Attributes:
      size: height and width of the images; the next good size is drawn.
      channels: of the images.
      title: what stands above it.
      plain: neither layers nor sizes, only the shape of the network and its channels.
      theme: of light or dark paper; "auto" follows the reader's screen, in an SVG.
      out: files to write, .svg and .png.
    """

    model: EncoderDecoder
    size: tuple[int, int]
    title: str
    out: tuple[Path, ...]
    channels: int = 3
    plain: bool = False
    theme: Theme = "auto"


@dataclass(frozen=True)
class Run:
    """Attributes:
    run: folder of a run, whose network is drawn.
    """

    run: Path


def draw_command(args: list[str], experiment: Experiment | None = None) -> None:
    """draw: a network's figure as SVG and PNG: encdec draw NAME (fcn8s, unet, …), or --run RUN."""
    if experiment is None and args in (["-h"], ["--help"]):
        print("usage: encdec draw NAME …, or --run FOLDER …   (each has --help), of")
        print(f"  {', '.join(NETWORKS)}")
        return
    name, model, size, rest = chosen(args, experiment)
    default = Figure(model, size, name, (Path(f"{name}.svg"), Path(f"{name}.png")))
    asked = parse(Figure, rest, default=default, prog=f"encdec draw {name}")
    if wrong := [str(path) for path in asked.out if path.suffix not in (".svg", ".png")]:
        raise InputError(f"--out wants files .svg or .png; got {', '.join(wrong)}")
    figure = draw(asked.model, asked.size, asked.channels, asked.title, asked.plain)
    for path in asked.out:
        figure.save(path, asked.theme)
        print(path)


def chosen(
    args: list[str], experiment: Experiment | None
) -> tuple[str, EncoderDecoder, tuple[int, int], list[str]]:
    """The name, the network, a size for it, and the other flags.

    Raises:
      InputError: there is no such network or run.
    """
    if experiment is not None:
        return Path(sys.argv[0]).stem, experiment.model, experiment.augment.size, args
    if "--run" in args:
        asking = [flag for flag in args if flag in ("-h", "--help")]
        given = [flag for flag in args if flag not in asking]
        asked, rest = parse(Run, given, return_unknown_args=True, prog="encdec draw")
        experiment = load(asked.run)
        return title(asked.run), experiment.model, experiment.augment.size, rest + asking
    name = args[0] if args else "nothing"
    if name not in NETWORKS:
        raise InputError(
            f"wanted one of {', '.join(NETWORKS)} after draw, or --run FOLDER; got "
            f"{name}{nearest(name, NETWORKS)}; a script draws its own network: "
            "python experiments/NAME.py draw"
        )
    side = SIDES.get(name, 512)
    return name, NETWORKS[name](), (side, side), args[1:]
