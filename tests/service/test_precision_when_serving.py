"""bfloat16 is used where it is close enough, and float32 otherwise."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.networks import Network
from tzk_core.service import precision
from tzk_core.service.precision import bfloat16_if_close


def dtypes(module):
    return {one.dtype for one in module.modules() if isinstance(one, Network)}


def test_close_enough():
    model = tiny_model()
    t = 0.1 * torch.ones(2, *model.observation_shape)
    exact = model.prior.log_prob(t)
    assert bfloat16_if_close(model)
    assert dtypes(model.flow) == {torch.bfloat16}
    assert dtypes(model.knowledge) == {None}
    rough = model.prior.log_prob(t)
    assert not torch.equal(rough, exact)
    assert torch.allclose(rough, exact, rtol=1e-2)


@pytest.mark.parametrize("limit", ["ROUND_TRIP", "BITS_PER_DIM"])
def test_too_far(limit, monkeypatch, caplog):
    model = tiny_model()
    monkeypatch.setattr(precision, limit, 0.0)
    assert not bfloat16_if_close(model)
    assert dtypes(model) == {None}
    assert "stay in float32" in caplog.text


def test_no_finite_sample(caplog):
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.fill_(float("nan"))
    assert not bfloat16_if_close(model)
    assert "no sample" in caplog.text
