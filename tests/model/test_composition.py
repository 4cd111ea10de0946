"""Several kinds at once, against products that are known.

Statistical tests have fixed seeds; each compares a mean of n draws with the truth at 4.5 standard
errors, a false-alarm rate below 1e-5 a comparison.
"""

from __future__ import annotations

import math

import pytest
import torch
from model.linear_gaussian import undo_coupling

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.errors import InvalidRequest
from tzk_core.model import TzK
from tzk_core.randomness import generator

DRAWS = 250
KINDS = {
    # name: (mean, standard deviation) of z in each of two dimensions, whatever the code is
    "left": ((-0.6, 0.3), (0.7, 0.5)),
    "up": ((0.2, 0.9), (0.6, 0.8)),
    "wide": ((0.4, -0.2), (0.9, 0.9)),
}


def fixed_kinds(z_steps: int, *names: str) -> TzK:
    """A TzK on the plane whose p(z|e=1) are the Gaussians of ``KINDS``, its t-flow the identity."""
    model = TzK(
        TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=4)), generator=generator(0)
    ).double()
    size = KnowledgeConfig(
        code_dim=2,
        z_steps=z_steps,
        z_context=False,
        code_steps=1,
        code_width=4,
        encoder_width=4,
        decoder_width=4,
        discriminator_width=4,
        z_log_sigma=(-5.0, 5.0),
    )
    with torch.no_grad():
        undo_coupling(model.flow)
        for name in names:
            model.add_knowledge(name, size, generator=generator(1))
            mean, sigma = (torch.tensor(part, dtype=torch.float64) for part in KINDS[name])
            decoder = model.find(name).decoders[1]
            log_sigma = 5 * torch.atanh(sigma.log() / 5)
            decoder.head.last.bias.copy_(torch.cat([mean, log_sigma]))
            undo_coupling(decoder.flow)
    return model


def product(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
    """µ and σ of ∏ N(z; µ_i, σ_i²) / N(z; 0, 1)^(K−1), by completing the square."""
    means, sigmas = (
        torch.stack([torch.tensor(KINDS[n][i], dtype=torch.float64) for n in names])
        for i in range(2)
    )
    precision = (sigmas**-2).sum(0) - (len(names) - 1)
    return (means / sigmas**2).sum(0) / precision, precision**-0.5


@pytest.mark.parametrize("z_steps", [0, 2], ids=["closed form", "tempered"])
@pytest.mark.parametrize("names", [("left", "up"), ("left", "up", "wide")], ids=["two", "three"])
def test_product_of_gaussians(z_steps: int, names: tuple[str, ...]) -> None:
    drawn = fixed_kinds(z_steps, *names).given(*names).draw(DRAWS, seed=3).images
    mean, sigma = product(*names)
    assert_mean(drawn, mean)
    assert_mean((drawn - mean) ** 2, sigma**2)


def test_a_kind_alone_fails_where_the_product_passes() -> None:
    """The check above can tell: draws of one factor do not pass for the product."""
    drawn = fixed_kinds(0, "left", "up").given("left").draw(DRAWS, seed=3).images
    mean, _ = product("left", "up")
    with pytest.raises(AssertionError):
        assert_mean(drawn, mean)


@pytest.mark.parametrize("z_steps", [0, 2], ids=["closed form", "tempered"])
def test_codes_matter(z_steps: int) -> None:
    """Overlapping classes on the plane: p(z|c) moves with c, so the product couples the codes.

    With z = a·c + s·ε and c ~ N(0, 1) each kind is N(0, a² + s²), and the product of those is not
    what one gets by ignoring the codes.
    """
    names = ("left", "up")
    model = fixed_kinds(z_steps, *names)
    slope, spread = 0.5, 0.6
    with torch.no_grad():
        for name in names:
            decoder = model.find(name).decoders[1]
            decoder.head = _Linear(slope, spread)
    drawn = model.given(*names).draw(DRAWS, seed=11).images
    variance = 1 / (2 / (slope**2 + spread**2) - 1)
    assert_mean(drawn, torch.zeros(2, dtype=torch.float64))
    assert_mean(drawn**2, torch.full((2,), variance, dtype=torch.float64))


class _Linear(torch.nn.Module):
    """c → (slope·c, log σ), as a decoder's head with limits ±5 reads it."""

    def __init__(self, slope: float, sigma: float) -> None:
        super().__init__()
        self.slope, self.raw = slope, 5 * math.atanh(math.log(sigma) / 5)

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.slope * c, torch.full_like(c, self.raw)], dim=1)


@pytest.mark.parametrize("z_steps", [0, 2], ids=["closed form", "tempered"])
def test_row_does_not_depend_on_its_neighbours(z_steps: int) -> None:
    given = fixed_kinds(z_steps, "left", "up").given("left", "up")
    together = given.draw(4, seed=20).images
    alone = given.draw(1, seed=22).images
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-8)


def test_absent_kind_uses_its_other_branch() -> None:
    model = fixed_kinds(0, "left", "up")
    with torch.no_grad():
        bias = model.find("up").decoders[0].head.last.bias
        bias.copy_(torch.tensor([0.0, -1.0, 0.0, 0.0]))
        bias[2:] = 5 * math.atanh(math.log(0.5) / 5)
    drawn = model.given("left", absent=["up"]).draw(DRAWS, seed=5).images
    left_mean, left_sigma = (torch.tensor(v, dtype=torch.float64) for v in KINDS["left"])
    other_mean = torch.tensor([0.0, -1.0], dtype=torch.float64)
    precision = left_sigma**-2 + 4.0 - 1
    assert_mean(drawn, (left_mean / left_sigma**2 + other_mean * 4.0) / precision)


def test_wider_than_the_prior_is_refused() -> None:
    model = fixed_kinds(0, "left", "up")
    with torch.no_grad():
        for name in ("left", "up"):
            model.find(name).decoders[1].head.last.bias[2:] = 5 * math.atanh(math.log(2.0) / 5)
    with pytest.raises(InvalidRequest, match=r"left, up have no product"):
        model.given("left", "up").draw(2, seed=0)


def test_no_density() -> None:
    given = fixed_kinds(0, "left", "up").given("left", "up")
    with pytest.raises(InvalidRequest, match="normaliser is unknown"):
        given.log_prob(torch.zeros(1, 2, dtype=torch.float64))


def test_levels_do_not_mix() -> None:
    model = fixed_kinds(0, "left", "up").add_knowledge("left/a", generator=generator(2))
    with pytest.raises(InvalidRequest, match="different levels"):
        model.given("left/a", "up")
    with pytest.raises(InvalidRequest, match="named twice"):
        model.given("left", "left")


def assert_mean(values: torch.Tensor, truth: torch.Tensor) -> None:
    """The mean of the rows of ``values`` is ``truth``, within 4.5 standard errors."""
    error = values.std(0) / math.sqrt(len(values))
    away = ((values.mean(0) - truth) / error).abs()
    assert (away < 4.5).all(), f"{values.mean(0)} is {away} standard errors from {truth}"
