"""The slope of a series that depends on its own past, with a confidence interval.

Memory at one moment is nearly what it was a moment before: a hundred samples are worth a few
independent ones, and the interval of ordinary least squares is several times too narrow. Memory
that is taken and never given back even wanders without a trend. So the slope is estimated as by
Perron and Yabu (2009, "Estimating deterministic trends with an integrated or stationary noise
component", Journal of Econometrics 151): least squares on y_t − a·y_(t−1), a being the correlation
of successive residuals, corrected for its bias and set to 1 where it cannot be told from 1. Then
the estimate is nearly normal whether the noise comes back (a < 1) or wanders (a = 1).

A block bootstrap wants many blocks, each much longer than the noise takes to come back, and half an
hour has not enough; Newey and West's variance of plain least squares is too small for a near 1. It
is taken here for what the differences leave, where it is larger than the ordinary one.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

__all__ = ["FEWEST", "Trend", "student", "trend", "verdict"]

FEWEST = 20
"""Samples. With fewer, the correlation of successive ones is hardly known."""
CONFIDENCE = 0.95


class Trend(NamedTuple):
    """A slope and its confidence interval, in units of the series for one of time.

    Args:
        correlation: of successive residuals, as it was used; 1 for a series that wanders.
        level: of the series, its mean.
    """

    slope: float
    low: float
    high: float
    correlation: float
    level: float


def trend(times: np.ndarray, values: np.ndarray, confidence: float = CONFIDENCE) -> Trend:
    """The slope of ``values`` over ``times``, both of shape (n,), evenly spaced.

    Raises:
        ValueError: there are fewer than ``FEWEST``.
    """
    n = len(values)
    if n < FEWEST:
        raise ValueError(f"{n} samples are too few for a slope: {FEWEST} or more are needed")
    line = np.stack([np.ones(n), np.asarray(times, float) - times[0]], 1)
    values = np.asarray(values, float)
    a = _correlation(_residuals(line, values))
    if a == 1:
        # Of differences the constant is gone, and the slope is their mean.
        design, differences = np.diff(line[:, 1:], axis=0), np.diff(values)
    else:
        first = np.sqrt(1 - a * a)
        design = np.concatenate([first * line[:1], line[1:] - a * line[:-1]])
        differences = np.concatenate([first * values[:1], values[1:] - a * values[:-1]])
    slope = np.linalg.lstsq(design, differences, rcond=None)[0][-1]
    error = _standard_error(design, _residuals(design, differences))
    # One more than the design's columns: the correlation was estimated too.
    half = student(len(differences) - design.shape[1] - 1, confidence) * error
    return Trend(float(slope), float(slope - half), float(slope + half), a, float(values.mean()))


def verdict(found: Trend, most: float) -> str:
    """``flat``, ``grows`` or ``undecided``.

    Flat needs more than an interval with zero in it, which a short series always has: growth of
    ``most`` or more must be excluded. What grows by less, however surely, is called flat.
    """
    if found.high < most:
        return "flat"
    return "grows" if found.low > 0 else "undecided"


def student(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t, to 0.001 from 10 degrees of freedom on.

    By the expansion about the normal's (Abramowitz and Stegun, 26.7.5).

    >>> round(student(10), 3), round(student(300), 3)
    (2.228, 1.968)
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (i + 1) for i, term in enumerate(terms))


def _residuals(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def _correlation(residuals: np.ndarray) -> float:
    """Of successive ones, in [0, 1]; 1 where it is nearer to 1 than can be told."""
    n, power = len(residuals), residuals[:-1] @ residuals[:-1]
    if power <= 1e-24:  # a series that is a line to the last digit
        return 0.0
    a = residuals[1:] @ residuals[:-1] / power
    a += (2 + 4 * a) / n  # about a fitted line it comes out too small by this (Kendall 1954)
    return 1.0 if a > 1 - n**-0.5 else max(0.0, float(a))


def _standard_error(design: np.ndarray, residuals: np.ndarray) -> float:
    """Of the last coefficient: the larger of the ordinary one and Newey and West's."""
    n, columns = design.shape
    inverse = np.linalg.inv(design.T @ design)
    left = n - columns - 1
    ordinary = residuals @ residuals / left * inverse[-1, -1]
    scores = design * residuals[:, None]
    lags = int(4 * (n / 100) ** (2 / 9)) + 1  # their own rule of thumb (1994)
    spread = scores.T @ scores
    for lag in range(1, lags + 1):
        across = scores[lag:].T @ scores[:-lag]
        spread += (1 - lag / (lags + 1)) * (across + across.T)
    robust = (inverse @ spread @ inverse)[-1, -1] * n / left
    return float(np.sqrt(max(ordinary, robust)))
