"""Telling images of other sources from a model's own: scores, and AUROCs with their errors.

A likelihood alone is a poor alarm (design, section 7). So typicality stands beside what is simpler:
log p(t) and the length of the PNG file, from the same forward pass and the same PNG.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.quantisation import dequantise
from ..model import TzK
from ..randomness import derived, rows
from ..typicality import Typicality
from ..typicality_statistics import forward, statistics
from .held_out import Figure

__all__ = ["Scored", "auroc_of", "ks_chance", "scored"]

BATCH = 128


@dataclass(frozen=True)
class Scored:
    """Scores of images, float64 (N,)."""

    typicality: Tensor  # tail probability, small for what is unusual
    odd: dict[str, Tensor]  # by name, higher for what is odder


@torch.no_grad()
def scored(
    model: TzK,
    fitted: Typicality,
    pixels: Tensor,
    *,
    seed: int,
    name: str,
    tick: Callable[[int], None] | None = None,
) -> Scored:
    """Typicality and the simpler scores of images.

    The two-sided score of log p(t) is −2·min(r, 1 − r), r being its rank among the held-out
    training images whose log p the model has stored; that of the PNG's length is its distance
    from the median on the scale of a standard normal, on which typicality puts it.

    Args:
        fitted: what the model has stored.
        pixels: uint8 (N, C, H, W).
        seed, name: of the dequantisation, ``name`` telling sources apart.
        tick: called with the number of images of each batch.
    """
    values, log_p = [], []
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        noise = rows(derived(seed, "separation", name, start), len(part)).uniform(*part.shape[1:])
        levels = forward(model, dequantise(part, noise).to(model.reference))
        values.append(statistics(levels, part))
        log_p.append(levels.log_prob.double().cpu())
        if tick is not None:
            tick(len(part))
    value, log_prob = torch.cat(values), torch.cat(log_p)
    tails = fitted.tail(value)
    odd = {"typicality": -tails, "low log p(t)": -log_prob}
    held_out = model.statistics.get("held_out_log_prob") or []
    if held_out:
        count = len(held_out)
        below = [bisect.bisect_left(held_out, v) for v in log_prob.tolist()]
        above = [count - bisect.bisect_right(held_out, v) for v in log_prob.tolist()]
        near = torch.tensor([min(pair) for pair in zip(below, above)], dtype=torch.float64)
        # Conformal ranks of either side, as those of typicality.
        odd["log p(t), two-sided"] = -2 * (1 + near) / (count + 1)
    odd["long PNG"] = value[:, -1]
    odd["PNG, two-sided"] = fitted.normalised(value)[:, -1].abs()
    # What is not finite is as odd as can be; NaN would have no rank.
    odd = {key: score.nan_to_num(nan=math.inf) for key, score in odd.items()}
    return Scored(tails, odd)


def auroc_of(own: Tensor, other: Tensor, name: str) -> Figure:
    """P(an image of the other source scores higher than an own one) + ½ P(equal).

    The standard error is DeLong's (DeLong, DeLong & Clarke-Pearson 1988): the variances of the two
    placements, each over its number of images. It is NaN for fewer than two of either.
    """
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


def ks_chance(count: int, calibration: int) -> float:
    """What the Kolmogorov–Smirnov distance of typicality exceeds once in 20 times by chance.

    The ranks are those of a finite sample too, so it is the two-sample distance's 95 % point.
    """
    return 1.358 * math.sqrt(1 / count + 1 / calibration)
