"""U-Net's weight map: classes balanced, and the gaps between touching cells made to count."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8
from scipy import ndimage

from encdec.arrays import IGNORE
from encdec.errors import InputError


@dataclass(frozen=True)
class Border:
    """Weights of pixels: w = w_c + w0 exp(-(d1 + d2)² / (2 sigma²)) (U-Net, equation 2).

    d1 and d2 are the distances of a background pixel to the nearest pixel of the nearest and of the
    second nearest instance: 1 and 1 in a gap one pixel wide. Inside an instance, and with fewer
    than two of them, the second term is 0. Pixels of label 0 are in no instance: so the border that
    is cut between touching cells (§3) counts as the gap that it is.

    Attributes:
      w0: the second term's limit as the gap closes.
      sigma: its reach, in pixels of the files.
      balance: w_c is the inverse frequency of a pixel's class in its image, scaled to a mean of 1
        over the labelled pixels (the paper does not give the form); without it w_c is 1.
    """

    w0: float = 10.0
    sigma: float = 5.0
    balance: bool = True

    def __post_init__(self) -> None:
        if self.w0 < 0 or self.sigma <= 0:
            raise InputError(
                f"a border wants w0 of 0 or more and sigma above 0; {self.w0} and {self.sigma} "
                "came; change --data.border.w0 or --data.border.sigma"
            )

    def __call__(
        self, label: UInt8[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """The weights, 0 where the label is 255; within 2e-8 w0 of the equation."""
        by_class = balanced(label) if self.balance else 1.0
        instances = np.where(label == 0, 0, instances)
        gap = gaps(instances, 6 * self.sigma)  # beyond 6 sigma the term is less than 2e-8 w0
        weight = by_class + self.w0 * np.exp(-(gap**2) / (2 * self.sigma**2))
        return np.where(label == IGNORE, 0, weight).astype(np.float32)


def balanced(label: UInt8[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Inverse frequency of each pixel's class, of mean 1; 0 where the label is 255."""
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    counts[IGNORE] = 0
    share = counts * np.count_nonzero(counts) / max(1, counts.sum())
    return np.divide(1, share, out=np.zeros(IGNORE + 1), where=counts > 0)[label]


def gaps(instances: Int32[np.ndarray, "h w"], reach: float) -> Float64[np.ndarray, "h w"]:
    """d1 + d2 of background pixels, or infinity where it is above `reach`; infinity elsewhere.

    One distance transform for each instance, of its bounding box and `reach` around it.
    """
    nearest, second = np.full((2, *instances.shape), np.inf)
    margin = math.ceil(reach)
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:  # no instance has this number
            continue
        box = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)
        distance = ndimage.distance_transform_edt(instances[box] != number)
        second[box] = np.minimum(second[box], np.maximum(nearest[box], distance))
        nearest[box] = np.minimum(nearest[box], distance)
    total = nearest + second
    return np.where((instances > 0) | (total > reach), np.inf, total)
