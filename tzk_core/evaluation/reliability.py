"""Whether what is said with probability p happens in a share p of the cases, bin by bin."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from .discriminators import BINS

__all__ = ["Bin", "reliability"]


class Bin(NamedTuple):
    """The cases whose probability lies in [low, high)."""

    low: float
    high: float
    count: int
    said: float  # their mean probability
    happened: float  # the share of them that did
    standard_error: float  # of ``happened``, were each an independent draw of that share


def reliability(probability: Tensor, happened: Tensor, bins: int = BINS) -> list[Bin]:
    """The points of a reliability diagram; bins without cases are left out.

    The calibration error (:func:`tzk_core.evaluation.discriminators.calibration_error`) is
    Σ_b n_b/N |said − happened| over these.

    Args:
        probability: (N,), in [0, 1].
        happened: bool (N,).
    """
    p, y = probability.double().cpu(), happened.double().cpu()
    index = (p * bins).long().clamp(0, bins - 1)
    found = []
    for b in index.unique().tolist():
        own = index == b
        count, share = int(own.sum()), float(y[own].mean())
        error = math.sqrt(share * (1 - share) / count)
        found.append(Bin(b / bins, (b + 1) / bins, count, float(p[own].mean()), share, error))
    return found
