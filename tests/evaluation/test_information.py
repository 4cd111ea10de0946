"""I(c; t) against channels whose information is known."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import PATHS, tiny_model

from tzk_core.evaluation.information import code_information, mixture_information


def channel(signal: float, noise: float, count: int, dims: int = 1):
    """u = µ + σ·ε with µ ~ N(0, signal²), σ = noise."""
    source = torch.Generator().manual_seed(0)
    mean = signal * torch.randn(count, dims, generator=source, dtype=torch.float64)
    log_sigma = torch.full_like(mean, math.log(noise))
    u = mean + noise * torch.randn(count, dims, generator=source, dtype=torch.float64)
    return u, mean, log_sigma


@pytest.mark.parametrize(("signal", "noise", "dims"), [(1, 1, 1), (2, 0.5, 1), (1, 0.7, 2)])
def test_a_gaussian_channel_has_its_capacity(signal, noise, dims):
    terms = mixture_information(*channel(signal, noise, 4000, dims))
    truth = dims * 0.5 * math.log(1 + (signal / noise) ** 2)
    # Five standard errors: a false alarm once in two million seeds; bias at M = 4000 is smaller.
    assert float(terms.mean()) == pytest.approx(truth, abs=5 * float(terms.std()) / 4000**0.5)


def test_no_information_is_zero():
    u, mean, log_sigma = channel(0, 1, 500)
    assert mixture_information(u, mean, log_sigma).abs().max() < 1e-12


def test_a_noiseless_channel_reaches_its_cap():
    terms = mixture_information(*channel(1, 1e-4, 300, dims=4))
    assert terms.numpy() == pytest.approx(math.log(300))


def test_it_is_the_plain_formula_in_blocks_and_at_once(monkeypatch):
    u, mean, log_sigma = channel(1.5, 0.3, 90, 3)
    source = torch.Generator().manual_seed(1)
    log_sigma = log_sigma + torch.randn(log_sigma.shape, generator=source).double()
    normal = torch.distributions.Normal(mean, log_sigma.exp())
    log_q = normal.log_prob(u[:, None]).sum(2)  # (n, m)
    plain = log_q.diagonal() - log_q.logsumexp(1) + math.log(90)
    whole = mixture_information(u, mean, log_sigma)
    monkeypatch.setattr("tzk_core.evaluation.information.ELEMENTS", 700)
    torch.testing.assert_close(whole, plain)
    torch.testing.assert_close(mixture_information(u, mean, log_sigma), plain)


@pytest.mark.parametrize("path", PATHS)
def test_a_model_has_it_at_every_level(path):
    pixels = torch.randint(
        0, 256, (40, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    model = tiny_model()
    found = code_information(model, path, pixels, seed=0, largest=30)
    assert found == code_information(model, path, pixels, seed=0, largest=30)
    assert found.cap == math.log(30)
    assert found.information.count == 30
    assert found.information.mean <= found.cap
    assert len(found.variance) == model.find(path).config.code_dim


def test_it_is_that_of_the_code_and_not_of_its_base():
    """The encoder's flow from u to c changes densities, but no information."""
    model, pixels = tiny_model(), torch.zeros(30, 1, 16, 16, dtype=torch.uint8)
    pixels += torch.arange(30, dtype=torch.uint8).reshape(-1, 1, 1, 1) * 8
    encoder = model.find("mnist").encoders[1]
    t = pixels / 256 - 0.5
    with torch.no_grad():
        base = encoder.base(t)
        noise = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        c, _ = encoder.sample(base, noise)
        log_q = torch.stack(
            [
                encoder.log_prob(tuple(part[m : m + 1].expand(30, -1) for part in base), c)
                for m in range(30)
            ],
            1,
        )
        plain = log_q.diagonal() - log_q.logsumexp(1) + math.log(30)
        found = mixture_information(base[0] + base[1].exp() * noise, *base)
    torch.testing.assert_close(found.float(), plain, atol=1e-4, rtol=1e-4)
