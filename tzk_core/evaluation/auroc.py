"""The area under the ROC curve of a score, with its standard error."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from .held_out import Figure

__all__ = ["auroc_of"]


def auroc_of(own: Tensor, other: Tensor, name: str) -> Figure:
    """P(one of the others scores higher than an own one) + ½ P(equal), exact; NaN without either.

    The standard error is DeLong's (DeLong, DeLong & Clarke-Pearson 1988): the variances of the two
    placements, each over its number of images. It is NaN for fewer than two of either.
    """
    if not len(own) or not len(other):
        return Figure(name, math.nan, math.nan, len(own) + len(other), "AUROC")
    a, b = (np.sort(scores.double().cpu().numpy()) for scores in (own, other))

    def share_below(of: np.ndarray, among: np.ndarray) -> np.ndarray:
        left, right = (np.searchsorted(among, of, side=side) for side in ("left", "right"))
        return (left + right) / (2 * len(among))

    other_above = share_below(b, a)  # for each other image, the share of own ones below it
    own_below = 1 - share_below(a, b)
    error = math.nan
    if min(len(a), len(b)) > 1:
        error = math.sqrt(own_below.var(ddof=1) / len(a) + other_above.var(ddof=1) / len(b))
    return Figure(name, float(other_above.mean()), error, len(a) + len(b), "AUROC")
