"""The two posteriors on the linear-Gaussian model, where p(e ∣ t) is known by both ways."""

from __future__ import annotations

import math

import pytest
import torch
from model.linear_gaussian import generator, world

from tzk_core.evaluation.consistency import Posteriors, consistency, posteriors

N = 40


@pytest.fixture(scope="module")
def t():
    return torch.randn(N, 2, generator=generator(3), dtype=torch.float64)


@pytest.fixture(scope="module")
def off():
    """A model whose encoder of codes is not the exact posterior, so that weights vary."""
    return world(off=0.3, widen=1.3)


@pytest.fixture(scope="module")
def found(off, t):
    return posteriors(off.model, "a", t, seed=0, draws=1024)


def test_the_encoders_logit_is_the_discriminators(off, t, found):
    log_p = off.a.seen.log_prob(t)
    truth = log_p - torch.log1p(-log_p.exp())
    torch.testing.assert_close(found.encoder, truth)


def test_the_decoders_logit_is_the_closed_form_within_its_error(off, t, found):
    truth = off.a.log_joint(t, 1) - off.a.log_joint(t, 0)
    distance = (found.decoder - truth) / found.error
    # Of 40 images none is off by more than 4.5 errors: a false alarm once in 3,700 seeds.
    assert distance.abs().max() < 4.5
    assert found.error.max() < 0.2  # so that p(e) left in, 0.9 nats, would show
    # And the errors are not much too large either: the draws of the prior are stratified, so that
    # the spread of the distances lies below 1.
    assert 0.3 < distance.square().mean().sqrt() < 1.5


def test_more_draws_have_smaller_errors(off, t, found):
    few = posteriors(off.model, "a", t, seed=0, draws=64)
    assert 2 < float(few.error.median() / found.error.median()) < 8  # 4, were all draws alike


def test_sizes_are_between_one_and_n(found):
    assert found.sample_size.min() >= 1
    assert found.sample_size.max() <= 1024


def test_below_a_kind_the_decoder_is_checked_by_quadrature(off, t):
    """p_dec(t, e_b ∣ e_a = 1) = ∫ p(c, e_b) p(t ∣ e_a = 1, c) dc over a grid of c, and b in closed
    form."""
    found = posteriors(off.model, "a/b", t[:8], seed=1, draws=2048)
    side = torch.linspace(-6, 6, 241, dtype=torch.float64)
    c = torch.cartesian_prod(side, side)
    log_z = []
    for e in (0, 1):
        log_c = off.b.log_joint(c, e)
        log_z.append(torch.stack([(log_c + _given(off, row, c)).logsumexp(0) for row in t[:8]]))
    truth = log_z[1] - log_z[0]
    assert ((found.decoder - truth) / found.error).abs().max() < 4.5
    assert found.error.max() < 0.3


def _given(world_, row, c):
    """log p(t ∣ e_a = 1, c) for every c, by matrices."""
    matrix, shift = world_.a.flow
    z = matrix @ row + shift
    mean = c @ world_.a.weights[1].T + world_.a.biases[1]
    sigma = world_.a.sigmas[1]
    log_z = -0.5 * (((z - mean) / sigma) ** 2).sum(1) - sigma.log().sum() - math.log(2 * math.pi)
    return log_z + torch.linalg.slogdet(matrix)[1]


def test_figures_of_constructed_logits():
    encoder = torch.tensor([2.0, -1.0, 3.0, -4.0], dtype=torch.float64)
    decoder = torch.tensor([1.0, 1.0, 3.0, -2.0], dtype=torch.float64)
    size = torch.tensor([10.0, 20.0, 30.0, 40.0], dtype=torch.float64)
    both = Posteriors("a", encoder, decoder, torch.tensor([0.1, 0.2, 0.4, 0.3]), size)
    found = consistency(both, torch.tensor([1, 1, 0, -1]))
    assert found.agreement.mean == 0.75
    assert found.difference.mean == pytest.approx((1 - 2 + 0 - 2) / 4)
    assert found.median_distance in (1, 2)
    assert found.encoder_right.mean == pytest.approx(1 / 3)  # only the first; the last is unknown
    assert found.decoder_right.mean == pytest.approx(2 / 3)
    assert found.decoder_right.count == 3
    assert found.sample_size.mean == 25
    expected = (encoder.sigmoid() - decoder.sigmoid()).abs().mean()
    assert found.probability_gap.mean == pytest.approx(float(expected))


def test_what_is_right_is_not_told_where_nothing_is_known():
    column = torch.zeros(3, dtype=torch.float64)
    found = consistency(Posteriors("a", column, column, column, column), torch.full((3,), -1))
    assert (found.encoder_right, found.decoder_right) == (None, None)


def test_a_seed_gives_the_same(off, t):
    first, again, other = (
        posteriors(off.model, "a", t[:3], seed=seed, draws=16).decoder for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
