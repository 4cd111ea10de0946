"""Means with their standard errors."""

from __future__ import annotations

import math

from torch import Tensor

from .held_out import Figure

__all__ = ["mean_of", "mean_of_groups"]


def mean_of(values: Tensor, name: str, unit: str) -> Figure:
    """The mean of independent values (N,), its standard error s/√N (NaN for N = 1)."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Figure(name, float(values.mean()), error, len(values), unit)


def mean_of_groups(groups: list[Figure], name: str) -> Figure:
    """The mean over groups, each counting alike; errors add up as of independent groups."""
    error = math.sqrt(sum(group.standard_error**2 for group in groups)) / len(groups)
    mean = sum(group.mean for group in groups) / len(groups)
    return Figure(name, mean, error, sum(group.count for group in groups), groups[0].unit)
