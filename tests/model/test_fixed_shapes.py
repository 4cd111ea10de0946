"""The objective in fixed shapes against the one that picks rows, whose noise is made the same."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.objective import FixedNoise, ObjectiveConfig, objective
from tzk_core.objective.codes import Weights
from tzk_core.randomness import generator

ROWS = 24


class SameNoise(FixedNoise):
    def normal(self, shape, like):
        self.used += 1
        return torch.full(shape, 0.3, dtype=like.dtype)


@pytest.fixture
def model():
    model = tiny_model().double()
    source = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=source, dtype=torch.double)
    return model


def worked_out(model, noise, *, unknown: bool, balance: bool, **terms):
    source = generator(2)
    t = torch.randn(ROWS, *model.observation_shape, generator=source, dtype=torch.double)
    low = -1 if unknown else 0
    e = {p: torch.randint(low, 2, (ROWS,), generator=source).char() for p in model.paths()}
    weights = {p: torch.rand(ROWS, generator=source).double() for p in model.paths()}
    model.zero_grad()
    config = ObjectiveConfig(kl_weight=0.3, discriminator_weight=2.0)
    found = objective(model, t, e, config, noise, balance=weights if balance else None, **terms)
    found.total.backward()
    found.total = found.total.detach()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found, gradients


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    "terms",
    [{}, {"flow": False}, {"knowledge": False}, {"flow": False, "parents": False}],
    ids=["all", "knowledge", "flow", "children"],
)
def test_the_same_terms_and_gradients(model, monkeypatch, terms, unknown, balance):
    monkeypatch.setattr(
        Weights,
        "whole_normal",
        lambda self, like, rows: torch.full((rows.count, *like.shape[1:]), 0.3, dtype=like.dtype),
    )
    plain, expected = worked_out(model, generator(3), unknown=unknown, balance=balance, **terms)
    monkeypatch.undo()
    fixed, gradients = worked_out(model, SameNoise(), unknown=unknown, balance=balance, **terms)
    assert float(fixed.total) == pytest.approx(float(plain.total), rel=1e-12)
    for name, gradient in expected.items():
        found = gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert expected
    assert set(plain.logs) <= set(fixed.logs)
    for name, value in plain.figures().items():
        assert float(fixed.figures()[name]) == pytest.approx(float(value), abs=1e-9), name


def test_noise_is_handed_out_in_turn():
    like = torch.zeros(1)
    asked = FixedNoise()
    assert not asked.normal((2, 3), like).any()
    asked.normal((4,), like)
    assert asked.used == 10
    given = FixedNoise(torch.arange(10.0))
    assert given.normal((2, 3), like).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert given.normal((4,), like).tolist() == [6, 7, 8, 9]
