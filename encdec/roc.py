"""How well a probability ranks pixels, object before background: the ROC curve and its area.

Pixels are counted in bins of their log odds, by true class: sums that add up over images. Bins of
equal width in the probability would lump together most pixels of a net that is sure of itself.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import logit

from encdec.data.fit import Example

BINS = 1000
LIMIT = 12.0  # log odds of the outermost bins: probabilities of 6e-6 and 1 - 6e-6


def measure(foreground: Float[np.ndarray, "h w"], example: Example) -> dict[str, np.ndarray]:
    """Sums of one image: histogram, int64 (2, BINS), the pixels of each true class by log odds.

    Args:
      foreground: probability of an object in [0, 1].
      example: "label": 1 on an object, 0 elsewhere.
    """
    label = example["label"]
    with np.errstate(divide="ignore"):  # 0 and 1 go to the outermost bins
        odds = logit(foreground.astype(np.float64).clip(0, 1))
    # Bins are open below, so that one half is not an object: as a decoded label map has it.
    bins = np.ceil((odds / LIMIT + 1) * BINS / 2).clip(1, BINS).astype(int) - 1
    sides = [np.bincount(bins[label == side], minlength=BINS) for side in (0, 1)]
    return {"histogram": np.stack(sides)}


def scores(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores in [0, 1] over all pixels of the set; NaN where a class that they need is absent.

    auc: area under the ROC curve by trapezoids over the bins, the chance that an object's pixel has
    more than a background's, ties in a bin one half. At probability 0.5: sensitivity (recall of
    objects), specificity (of background), accuracy, f1 of the object.
    """
    background, objects = sums["histogram"].astype(np.float64)
    fp, tp = background[BINS // 2 :].sum(), objects[BINS // 2 :].sum()
    negative, positive = background.sum(), objects.sum()
    below = np.cumsum(background) - background / 2
    return {
        "auc": _ratio((objects * below).sum(), positive * negative),
        "sensitivity": _ratio(tp, positive),
        "specificity": _ratio(negative - fp, negative),
        "accuracy": _ratio(tp + negative - fp, positive + negative),
        "f1": _ratio(2 * tp, positive + tp + fp),
    }


def _ratio(above: float, below: float) -> float:
    """above / below, NaN where below is 0."""
    return float(above / below) if below else float("nan")
