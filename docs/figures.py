"""Writes figures/*.svg beside it: the three decoders, as encdec draws them.

python docs/figures.py
"""

from collections.abc import Callable
from pathlib import Path

import encdec
from encdec import papers
from encdec.figures.drawing import Drawing, beside

FOLDER = Path(__file__).parent / "figures"


def three() -> Drawing:
    """The three decoders on one encoder, side by side."""
    walks = {
        "FCN-8s": (encdec.FCN(), encdec.Pixel(scores=True)),
        "U-Net": (encdec.UNet((2, 4, 8, 16, 32), (256, 128, 64, 32)), encdec.Pixel()),
        "FPN": (papers.fpn_rpn().decoder, papers.fpn_rpn().head),
    }
    drawn = [
        encdec.draw(
            encdec.EncoderDecoder(encdec.resnet50(), decoder, head),
            (512, 512),
            title=title,
            plain=True,
        )
        for title, (decoder, head) in walks.items()
    ]
    return beside(drawn, "FCN-8s, U-Net and FPN on one encoder, side by side")


FIGURES: dict[str, Callable[[], Drawing]] = {
    "fcn8s": lambda: encdec.draw(papers.fcn8s(), (500, 500), title="FCN-8s"),
    "unet": lambda: encdec.draw(papers.unet(), (572, 572), channels=1, title="U-Net"),
    "fpn": lambda: encdec.draw(papers.fpn_rpn(), (800, 1000), title="FPN, proposing regions"),
    "three": three,
}


if __name__ == "__main__":
    for name, figure in FIGURES.items():
        figure().save(FOLDER / f"{name}.svg")
