"""Whether two samples come from one distribution, with a false-alarm rate that is proved."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FALSE_ALARM", "differ"]

FALSE_ALARM = 1e-6
DIRECTIONS = 16


def differ(a: Tensor, b: Tensor, false_alarm: float = FALSE_ALARM) -> bool:
    """Kolmogorov-Smirnov on each coordinate, on random projections and on the distance to 0.

    Two samples of n each of one distribution have P(D > x) ≤ 2·exp(−n x²) for n ≥ 458 (Wei &
    Dudley 2012); the threshold makes the union over all projections at most ``false_alarm``.
    """
    n, size = a.shape
    assert a.shape == b.shape
    assert n >= 458
    directions = torch.randn(
        DIRECTIONS, size, generator=torch.Generator().manual_seed(0), dtype=a.dtype
    )
    directions = torch.cat((torch.eye(size, dtype=a.dtype), directions)).T

    def statistics(x: Tensor) -> Tensor:
        return torch.cat((x @ directions, x.norm(dim=1, keepdim=True)), dim=1)

    sa, sb = statistics(a), statistics(b)
    count = sa.shape[1]
    threshold = math.sqrt(math.log(2 * count / false_alarm) / n)
    return any(_distance(sa[:, k], sb[:, k]) > threshold for k in range(count))


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference between two empirical distribution functions."""
    assert a.isfinite().all()
    assert b.isfinite().all()
    points = torch.cat((a, b)).sort().values

    def share(x: Tensor) -> Tensor:
        return torch.searchsorted(x.sort().values, points, right=True) / len(x)

    return float((share(a) - share(b)).abs().max())
