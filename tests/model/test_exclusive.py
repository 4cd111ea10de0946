"""Kinds that are declared to exclude each other: their probabilities, given that one applies."""

from __future__ import annotations

import pytest
import torch
from tiny_model import SIDE, tiny_model

from tzk_core.config import KnowledgeConfig
from tzk_core.errors import InvalidRequest
from tzk_core.randomness import Rows, generator

SMALL = KnowledgeConfig(code_dim=2, code_width=4, encoder_width=4, decoder_width=4, z_width=4)


@pytest.fixture(scope="module")
def model():
    model = tiny_model().requires_grad_(False)
    for seed, path in enumerate(("mnist/4", "mnist/5"), start=1):
        model.add_knowledge(path, SMALL, generator=generator(seed))
        model.find(path).t_discriminator.trunk.last.bias.data.fill_(seed - 1.5)
    return model.requires_grad_(False).eval()


def posterior(model, **options):
    t = 0.3 * torch.randn(6, 1, SIDE, SIDE, generator=generator(1))
    return model.posterior(t, generator=Rows(range(6)), **options)


def test_exactly_one_of_them_applies(model):
    """P(only i) of independent answers p_i is ∏ p_i·(1 − p_j), normalised over i."""
    model.declare_exclusive("mnist")
    said = posterior(model)
    paths = ["mnist/3", "mnist/4", "mnist/5"]
    p = torch.stack([said[path].encoder for path in paths]).double()
    only = torch.stack([p[i] * (1 - p[[j for j in range(3) if j != i]]).prod(0) for i in range(3)])
    found = torch.stack([said[path].normalised for path in paths]).double()
    assert torch.allclose(found, only / only.sum(0), atol=1e-6)
    assert float(found.std()) > 0.01
    assert said["mnist"].normalised is None
    assert said["fashion"].normalised is None


def test_one_alone_is_told_the_same(model):
    model.declare_exclusive("mnist")
    alone = posterior(model, knowledge=["mnist/4"])
    assert list(alone) == ["mnist/4"]
    assert torch.equal(alone["mnist/4"].normalised, posterior(model)["mnist/4"].normalised)


def test_it_can_be_taken_back_and_is_saved(model, tmp_path):
    model.declare_exclusive("mnist").save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert posterior(loaded)["mnist/3"].normalised is not None
    model.declare_exclusive("mnist", exclusive=False)
    assert posterior(model)["mnist/3"].normalised is None
    with pytest.raises(InvalidRequest, match="has no kinds below it"):
        model.declare_exclusive("fashion")
