"""The likelihood table, and p(t | a) by the child's prior."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.errors import UsageError
from tzk_core.evaluation.likelihoods import likelihood_table, log_prob_by_child
from tzk_core.flows import ActNorm
from tzk_core.randomness import derived, rows

N = 6


@pytest.fixture(scope="module")
def pixels():
    source = torch.Generator().manual_seed(0)
    return torch.randint(100, 156, (N, 1, 16, 16), generator=source, dtype=torch.uint8)


@pytest.fixture(scope="module")
def table(pixels):
    ticks = []
    found = likelihood_table(
        tiny_model(),
        pixels,
        torch.full((N,), 200),
        torch.zeros(N, dtype=torch.int64),
        ["mnist/3"],
        seed=0,
        draws=(1, 16),
        tick=ticks.append,
    )
    assert sum(ticks) == N * len(found)
    return found


def test_every_estimator_stands_under_its_own_name(table):
    assert [(row.distribution, row.estimator, row.draws) for row in table] == [
        ("p(t)", "prior", None),
        ("p(t|mnist)", "importance", 1),
        ("p(t|mnist)", "importance", 16),
        ("p(t|mnist)", "reconstruction", None),
        ("p(t|mnist) by the child's prior", "importance", 1),
        ("p(t|mnist) by the child's prior", "importance", 16),
        ("p(t|mnist/own class)", "importance", 1),
        ("p(t|mnist/own class)", "importance", 16),
        ("p(t|mnist/own class)", "reconstruction", None),
    ]


def test_units(table, pixels):
    prior = table[0]
    noise = rows(derived(0, "likelihood", "noise"), N).uniform(1, 16, 16)
    t = (pixels + noise) / 256 - 0.5
    with torch.no_grad():
        log_p = tiny_model().prior.log_prob(t).double()
    nats = float((256 * math.log(256) - log_p).mean())
    assert prior.nats.mean == pytest.approx(nats, rel=1e-5)
    assert prior.bits.mean == pytest.approx(prior.nats.mean / (256 * math.log(2)))
    assert prior.bits_native.mean == pytest.approx(prior.nats.mean / (200 * math.log(2)))
    assert (prior.bits.unit, prior.bits_native.unit) == (
        "bits/dim on D = 256",
        "bits/dim on native D = 200",
    )


def test_effective_sample_sizes_lie_between_one_and_n(table):
    for row in table:
        if row.draws is None:
            assert row.effective_sample_size is None
        else:
            assert 1 - 1e-4 <= row.effective_sample_size.mean <= row.draws + 1e-4


def test_by_the_childs_prior_it_converges_to_quadrature():
    """∫ p_child(c)·p_dec(t∣e=1,c) dc by draws of the child's prior, and by importance."""
    model, count = tiny_model().double(), 6000
    source = torch.Generator().manual_seed(1)
    t = 0.1 * torch.randn(1, 1, 16, 16, generator=source, dtype=torch.float64)
    kind = model.find("mnist")
    with torch.no_grad():
        z, log_det = model.flow.encode(t)
        c = kind.child.prior.sample((count,), generator=source)
        log_w = kind.decoders[1].log_prob(z.expand(count, -1, -1, -1), c) + log_det
    weights = (log_w - log_w.max()).exp()
    truth = float(weights.mean().log() + log_w.max())
    relative = float(weights.std() / weights.mean()) / math.sqrt(count)
    found, ess = log_prob_by_child(
        model, "mnist", t, draws=3000, source=rows(torch.Generator().manual_seed(2), 1)
    )
    error = math.hypot(relative, math.sqrt(1 / float(ess) - 1 / 3000))
    # Four standard errors: a false alarm once in 16,000 seeds.
    assert abs(float(found) - truth) < 4 * error
    assert error < 0.02  # so that a mixture whose parts are not weighed by their draws would show


def test_its_weight_is_that_of_the_childs_prior(pixels):
    """One draw, against the formula; the child's prior is moved away from the kind's own."""
    model, t = tiny_model(), pixels / 256 - 0.5
    kind = model.find("mnist")
    norm = next(m for m in kind.child.flow.modules() if isinstance(m, ActNorm))
    with torch.no_grad():
        norm.bias += 2
        noise = rows(torch.Generator().manual_seed(0), N).normal(1, 4)[:, 0]
        c, log_q = kind.encoders[1].sample(kind.encoders[1].base(t), noise)
        log_p = model.given("mnist").log_prob_given_code(t, c) - log_q
        own = log_p + kind.code_prior.log_prob(c)
        truth = log_p + kind.child.prior.log_prob(c)
    source = rows(torch.Generator().manual_seed(0), N)
    found, ess = log_prob_by_child(model, "mnist", t, draws=1, source=source)
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-3)
    assert (found - own).abs().min() > 0.1
    torch.testing.assert_close(ess, torch.ones(N), rtol=1e-3, atol=1e-3)


def test_a_kind_without_a_child_has_no_such_prior(pixels):
    with pytest.raises(UsageError, match="no child"):
        log_prob_by_child(
            tiny_model(), "fashion", pixels / 256 - 0.5, draws=1, source=rows(None, N)
        )
