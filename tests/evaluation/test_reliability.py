"""Reliability on logits whose error is known."""

from __future__ import annotations

import pytest
import torch

from tzk_core.evaluation.discriminators import calibration_error
from tzk_core.evaluation.reliability import reliability

N = 200_000


@pytest.fixture(scope="module")
def cases():
    """(true probabilities, what happened)."""
    source = torch.Generator().manual_seed(0)
    p = torch.rand(N, generator=source, dtype=torch.float64)
    return p, torch.rand(N, generator=source, dtype=torch.float64) < p


def test_the_truth_is_calibrated(cases):
    bins = reliability(*cases)
    assert sum(b.count for b in bins) == N
    assert len(bins) == 15
    for b in bins:
        assert b.low <= b.said < b.high
        assert abs(b.said - b.happened) < 4.5 * b.standard_error


def test_logits_twice_too_large_have_the_error_that_an_integral_gives(cases):
    """Said is σ(2·logit p), p uniform: E|said − p|, by the midpoint rule."""
    p, happened = cases
    said = (2 * p.logit()).sigmoid()
    middle = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    truth = float(((2 * middle.logit()).sigmoid() - middle).abs().mean())
    assert truth > 0.05
    # Bins in which the error changes its sign cancel: only the one around ½, where it is small.
    assert calibration_error(said, happened).mean == pytest.approx(truth, abs=0.004)


def test_the_error_is_that_of_the_bins(cases):
    p, happened = cases[0][:500] ** 2, cases[1][:500]
    bins = reliability(p, happened, bins=7)
    total = sum(b.count * abs(b.said - b.happened) for b in bins) / 500
    assert calibration_error(p, happened, bins=7).mean == pytest.approx(total, abs=1e-12)


def test_bins_by_hand():
    bins = reliability(
        torch.tensor([0.05, 0.15, 0.15, 1.0]), torch.tensor([True, False, True, True]), bins=10
    )
    assert [(b.low, b.count) for b in bins] == [(0.0, 1), (0.1, 2), (0.9, 1)]
    assert [b.happened for b in bins] == [1.0, 0.5, 1.0]
    assert bins[1].standard_error == pytest.approx((0.25 / 2) ** 0.5)
