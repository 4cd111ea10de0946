"""Densities integrate to one, by quadrature in two dimensions, for models that are not linear.

The trapezoid rule on a grid that holds all of the mass is accurate to many digits for smooth
densities; what is estimated by Monte Carlo is unbiased, so its integral is too.
"""

from __future__ import annotations

import pytest
import torch
from flows.registry import perturb

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.likelihood import fit_existence
from tzk_core.model import TzK


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(half: float, points: int) -> tuple[torch.Tensor, float]:
    """(points², 2) on [−half, half]², and the area that each stands for."""
    axis = torch.linspace(-half, half, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.fixture(scope="module", params=["normal", "flow"])
def model(request):
    """2-D observations, 2-D codes, every layer away from its start, z-flow that sees c."""
    config = TzKConfig(observation=(2,), flow=FlowConfig(steps=3, width=8))
    model = TzK(config, generator=generator(0))
    kind = KnowledgeConfig(
        code_dim=2,
        code_prior=request.param,
        code_steps=2,
        code_width=6,
        encoder_width=6,
        decoder_width=6,
        z_steps=2,
        z_width=6,
        discriminator_width=6,
    )
    for path in ("a", "a/b"):
        model.add_knowledge(
            path, kind, child_flow=FlowConfig(steps=2, width=6), generator=generator(1)
        )
    perturb(model, generator(2), 0.15)
    model.double().eval().requires_grad_(False)
    # p(e = 1), which normalises conditionals, by quadrature in c and not by the model.
    c, cell = square(9.0, 181)
    for path in model.paths():
        found = model.find(path)
        weight = found.code_prior.log_prob(c).exp() * torch.sigmoid(found.c_discriminator(c))
        found.existence.fill_(float(weight.sum() * cell))
    return model


def test_priors(model):
    t, cell = square(11.0, 241)
    child = model.find("a").child
    for density in (
        model.prior.log_prob,
        child.prior.log_prob,
        model.find("a").code_prior.log_prob,
    ):
        assert float(density(t).exp().sum() * cell) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("e", [0, 1])
def test_factors_given_what_they_are_given(model, e):
    """p_dec(t ∣ e, c) in t, p_enc(c ∣ e, t) in c, for a few of their conditions."""
    given = model.given("a") if e else model.given(absent=["a"])
    grid, cell = square(11.0, 241)
    encoder = model.find("a").encoders[e]
    for condition in torch.randn(3, 2, generator=generator(3), dtype=torch.float64):
        here = condition.expand(len(grid), 2)
        density = given.log_prob_given_code(grid, here).exp()
        assert float(density.sum() * cell) == pytest.approx(1.0, abs=1e-5)
        density = encoder.log_prob(encoder.base(here), grid).exp()
        assert float(density.sum() * cell) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("draws", [1, 16])
def test_conditionals_and_the_mixture_over_e(model, draws):
    t, cell = square(7.0, 57)
    existence = float(model.find("a").existence)
    assert 0.1 < existence < 0.9
    masses = {}
    for e in (0, 1):
        given = model.given("a") if e else model.given(absent=["a"])
        said = given.log_prob(t, draws=draws, generator=generator(4 + e))
        masses[e] = float(said.exp().sum() * cell)
        assert masses[e] == pytest.approx(1.0, abs=0.03 if draws > 1 else 0.1)
    mixture = existence * masses[1] + (1 - existence) * masses[0]
    assert mixture == pytest.approx(1.0, abs=0.02 if draws > 1 else 0.1)


def test_a_path(model):
    t, cell = square(7.0, 57)
    for given in (model.given("a/b"), model.given(absent=["a/b"])):
        said = given.log_prob(t, draws=16, generator=generator(6))
        assert float(said.exp().sum() * cell) == pytest.approx(1.0, abs=0.04)


def test_samples_are_where_the_density_is(model):
    """The share of exact samples in a half-plane is the density's mass there."""
    t, cell = square(7.0, 57)
    density = model.given("a").log_prob(t, draws=32, generator=generator(7)).exp() * cell
    drawn = model.given("a").sample((4000,), generator=generator(8))
    for k in (0, 1):
        middle = float(drawn[:, k].median())
        mass = float(density[t[:, k] < middle].sum() + 0.5 * density[t[:, k] == middle].sum())
        # 5 standard errors of a median (5·0.5/√4000), and half a cell of the grid.
        assert mass == pytest.approx(0.5, abs=0.04 + 0.05)


def test_fitted_existence_is_the_integral(model):
    truth = {path: float(model.find(path).existence) for path in model.paths()}
    fit_existence(model, draws=100_000, generator=generator(9))
    for path, value in truth.items():
        found = model.find(path)
        # p(e∣c) is in [0, 1], so a standard deviation is at most ½.
        assert float(found.existence) == pytest.approx(value, abs=5 * 0.5 / 100_000**0.5)
        found.existence.fill_(value)
