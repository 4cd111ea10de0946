"""The rate that the `encoder` estimator divides by, on a model where it is known."""

from __future__ import annotations

import math

import torch
from model.linear_gaussian import Normal, world

from tzk_core.evaluation.encoder_rate import encoder_rates


def test_it_is_the_closed_form_within_its_error():
    """t = A⁻¹(z − a) is Gaussian, and E of a bump under a Gaussian is in closed form."""
    made = world()
    matrix, shift = made.a.flow
    inverse = torch.linalg.inv(matrix)
    t = Normal(-inverse @ shift, inverse @ inverse.T)
    truth = t.times(made.a.seen)[0]
    ticks = []
    found = encoder_rates(made.model, draws=20_000, seed=0, tick=ticks.append)["a"]
    assert sum(ticks) == found.count == 20_000
    assert abs(found.mean - truth) < 4.5 * found.standard_error
    # The spread of a bump's values over 20,000 samples.
    values = made.a.seen.log_prob(t.sample(4000, torch.Generator().manual_seed(1))).exp()
    assert 0.6 < found.standard_error / float(values.std() / math.sqrt(20_000)) < 1.6
    assert float(made.model.find("a").encoder_rate) == found.mean


def test_a_batch_that_is_not_finite_is_left_out(monkeypatch):
    made = world()
    plain = made.model.flow.decode
    calls = []

    def decode(z, context=None):
        t, log_det = plain(z, context)
        calls.append(len(t))
        return (t * torch.nan if len(calls) == 2 else t), log_det

    monkeypatch.setattr(made.model.flow, "decode", decode)
    found = encoder_rates(made.model, draws=1500, seed=0)["a"]
    assert found.count == 1000
    assert math.isfinite(found.mean)
