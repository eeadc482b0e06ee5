"""Weights in and out: from what others published, to a folder of one's own, and back.

model, variables = encdec.weights.load("resnet50.safetensors", model, variables,
                                       source="torchvision", part="encoder", report=print)
encdec.weights.save(folder, model, variables, card="…")
model, variables = encdec.weights.open(folder)
"""

from encdec.weights import hub
from encdec.weights.artefact import restore as open
from encdec.weights.artefact import save
from encdec.weights.convert import Report
from encdec.weights.published import export, load

__all__ = ["Report", "export", "hub", "load", "open", "save"]
