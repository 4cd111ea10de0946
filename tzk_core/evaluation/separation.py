"""Telling images of other sources from a model's own: scores (AUROCs are auroc.py's).

A likelihood alone is a poor alarm (design, section 7). So typicality stands beside what is simpler:
log p(t) and the length of the PNG file, from the same forward pass and the same PNG.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.quantisation import dequantise
from ..model import TzK
from ..randomness import derived, rows
from ..typicality import Typicality
from ..typicality_statistics import forward, statistics

__all__ = ["Scored", "ks_chance", "scored"]

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


def ks_chance(count: int, calibration: int) -> float:
    """What the Kolmogorov–Smirnov distance of typicality exceeds once in 20 times by chance.

    The ranks are those of a finite sample too, so it is the two-sample distance's 95 % point.
    """
    return 1.358 * math.sqrt(1 / count + 1 / calibration)
