"""How the images that come compare with those the model was measured on, for alarms on drift."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import Histogram

from tzk_core.data.quantisation import bits_per_dim, nll_nats
from tzk_core.service.answers import NllAnswer
from tzk_core.service.metrics.definitions import (
    BITS_PER_DIM,
    HELD_OUT_BITS_PER_DIM,
    PERCENTILE,
    TYPICALITY,
    WORKERS,
)

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["count_scores", "held_out_bits", "model_loaded"]

RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def count_scores(label: str, results: Iterable[Any]) -> None:
    """Counts the figures of scored images; answers of other kinds and errors have none."""
    for one in results:
        if not isinstance(one, NllAnswer):
            continue
        if one.bits_per_dim is not None:
            _child(BITS_PER_DIM, label, one.estimator).observe(one.bits_per_dim)
        if one.percentile is not None:
            _child(PERCENTILE, label).observe(one.percentile)
        if one.typicality is not None:
            _child(TYPICALITY, label).observe(one.typicality)


def model_loaded(label: str, model: TzK) -> None:
    """This process serves ``model`` from now on."""
    for rank, bits in held_out_bits(model).items():
        HELD_OUT_BITS_PER_DIM.labels(label, f"{rank:g}").set(bits)
    WORKERS.labels(label).set(1)


def held_out_bits(model: TzK) -> dict[float, float]:
    """Quantiles of bits/dim on D of the model's held-out images; empty when none is stored."""
    stored = [one for one in model.statistics.get("held_out_log_prob", []) if math.isfinite(one)]
    if not stored:
        return {}
    dims = math.prod(model.config.observation)
    bits = bits_per_dim(nll_nats(np.asarray(stored), dims), dims)
    return dict(zip(RANKS, np.quantile(bits, RANKS).tolist()))


@cache
def _child(histogram: Histogram, *labels: str) -> Histogram:
    return histogram.labels(*labels)
