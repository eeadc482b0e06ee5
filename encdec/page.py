"""The page of one run: one HTML file that needs nothing else."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer

from encdec import markup, sections
from encdec.samples import Sample
from encdec.table import show


def write_run(
    folder: Path,
    *,
    title: str,
    history: list[dict],
    scores: dict[str, float],
    per_class: dict[str, float],
    samples: list[Sample],
    classes: tuple[str, ...],
    facts: dict[str, str],
    settings: dict[str, str] | None = None,
    confusion: Integer[np.ndarray, "k k"] | None = None,
    kind: str = "iou",
) -> Path:
    """Writes report.html of one run; returns its path.

    Args:
      history: [{"step", "loss", optional "val": {"mean_iou": …}}, …] in order of step.
      scores: of the whole split, by name.
      per_class: of `kind`, one of `sections.KINDS`, in [0, 1] by class; NaN for a class that
        neither truth nor prediction has; may be empty.
      samples: see `encdec.sections`; may be empty.
      facts: what else a reader must know (machine, versions), by name.
      settings: what is long, and opened by a click (the experiment), by name.
      confusion: pixels of true class i (row) taken for j (column).
    """
    sections.check(samples)
    folder.mkdir(parents=True, exist_ok=True)
    tiles = {sections.named(name): show(sections.named(name), s) for name, s in scores.items()}
    parts = [markup.tiles(tiles), "<h2>Training</h2>", markup.charts(sections.panels(history))]
    parts += sections.by_class({"": per_class}, classes, kind)
    if confusion is not None and len(confusion) == len(classes):
        parts += ["<h2>Confusions</h2>", markup.note(sections.CONFUSED)]
        parts.append(sections.confusion(confusion, classes))
    if samples:
        parts += ["<h2>Images</h2>", sections.key_of(samples, classes)]
        parts += [sections.strip(sample, classes) for sample in samples]
    parts += ["<h2>Machine and versions</h2>", markup.facts(facts)]
    if settings:
        parts += ["<h2>Experiment</h2>", markup.folded(settings)]
    return write(folder, title, parts)


def write(folder: Path, title: str, parts: list[str]) -> Path:
    """Writes report.html of these sections; returns its path."""
    path = folder / "report.html"
    # Halves of characters, as names of files may have them, become numbers.
    path.write_text(markup.document(title, parts), "utf-8", "xmlcharrefreplace")
    return path
