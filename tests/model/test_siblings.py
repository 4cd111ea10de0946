"""Kinds worked out side by side give what they give one after the other."""

from __future__ import annotations

import pytest
import torch

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.model import TzK
from tzk_core.objective import ObjectiveConfig, Part, objective
from tzk_core.objective import level as module
from tzk_core.randomness import generator
from tzk_core.siblings import Stack, alike

ROWS = 40
SMALL = KnowledgeConfig(
    code_dim=2,
    code_steps=1,
    code_width=4,
    encoder_width=4,
    decoder_width=4,
    z_steps=2,
    z_width=4,
    discriminator_width=4,
)
NAMES = ["0", "1", "2", "other"]


@pytest.fixture
def tzk():
    """Three kinds of one shape on a 5-D code, and one that has another."""
    model = TzK(
        TzKConfig(observation=(5,), flow=FlowConfig(steps=2, width=4)), generator=generator(0)
    )
    for name in NAMES:
        size = SMALL.model_copy(update={"label": name, "code_dim": 3 if name == "other" else 2})
        model.add_knowledge(name, size, generator=generator(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(2))
    return model.double()


@pytest.fixture
def batch():
    """Observations; e of every kind, some unknown, "2" never 1; weights for one of them."""
    source = generator(3)
    t = torch.randn(ROWS, 5, generator=source, dtype=torch.float64)
    label = torch.randint(2, (ROWS,), generator=source)
    existence = {}
    for number, name in enumerate(NAMES):
        unknown = torch.rand(ROWS, generator=source) < 0.2
        existence[name] = torch.where(unknown, -1, (label == number).long()).to(torch.int8)
    return t, existence, {"1": torch.rand(ROWS, generator=source, dtype=torch.float64)}


def worked_out(tzk, batch, **more):
    t, existence, balance = batch
    tzk.zero_grad()
    terms = objective(tzk, t, existence, ObjectiveConfig(), generator(4), balance=balance, **more)
    terms.total.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in tzk.named_parameters()
    }
    return terms, gradients


def test_they_are_found_by_shape(tzk):
    assert alike(tzk.kinds()) == [["0", "1", "2"]]


def test_the_same_terms_gradients_and_figures(tzk, batch, monkeypatch):
    """Against the loop over kinds, which other tests check; the noise is the same in both."""

    def same_noise(self, like, rows):
        return torch.full((rows.count, *like.shape[1:]), 0.3, dtype=like.dtype)

    monkeypatch.setattr(module.Weights, "whole_normal", same_noise)
    together, gradients = worked_out(tzk, batch)
    monkeypatch.setattr(module.Level, "_together", lambda *_: [])
    alone, expected = worked_out(tzk, batch)
    assert together.total.item() == pytest.approx(alone.total.item(), rel=1e-12)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert any(float(g.abs().max()) > 0.1 for n, g in expected.items() if "k_1." in n)
    assert together.figures().keys() == alone.figures().keys()
    for name, value in alone.figures().items():
        assert float(together.figures()[name]) == pytest.approx(float(value), abs=1e-12), name


def test_parts_of_a_batch_add_up(tzk, batch):
    """However it is cut: the noise is drawn for all rows, and the means are over all rows."""
    whole, expected = worked_out(tzk, batch)
    t, existence, balance = batch
    total, sums = 0.0, {name: torch.zeros_like(g) for name, g in expected.items()}
    for start, stop in ((0, 7), (7, 31), (31, ROWS)):
        part = Part(ROWS, start, stop)
        terms, gradients = worked_out(tzk, (t[start:stop], existence, balance), part=part)
        total += terms.total.item()
        for name, gradient in gradients.items():
            sums[name] += gradient
    assert total == pytest.approx(whole.total.item(), rel=1e-12)
    for name, gradient in expected.items():
        torch.testing.assert_close(sums[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_noise_differs_between_kinds_values_and_rows(tzk, batch, monkeypatch):
    seen = []
    plain = module.side_by_side

    def keep(kinds, t, t_shaping, z, noise):
        seen.append(noise)
        return plain(kinds, t, t_shaping, z, noise)

    monkeypatch.setattr(module, "side_by_side", keep)
    worked_out(tzk, batch)
    [noise] = seen
    assert noise.shape == (3, 2, ROWS, 2)
    assert len(noise.flatten().unique()) == noise.numel()


def test_frozen_kinds_get_no_gradient(tzk, batch):
    tzk.freeze("1")
    _, gradients = worked_out(tzk, batch)
    assert all(not g.any() for name, g in gradients.items() if "k_1." in name)
    assert any(g.any() for name, g in gradients.items() if "k_0." in name)


def test_stacked_weights_get_the_same_gradients(tzk, batch):
    _, expected = worked_out(tzk, batch)
    before = {name: value.clone() for name, value in tzk.state_dict().items()}
    tzk.zero_grad()
    stack = Stack([tzk.kinds()[name] for name in ("0", "1", "2")])
    t, existence, balance = batch
    objective(tzk, t, existence, ObjectiveConfig(), generator(4), balance=balance).total.backward()
    names = {id(p): name for name, p in tzk.named_parameters()}
    found = {
        names[id(one)]: gradient
        for whole, each in stack.parameters
        for one, gradient in zip(each, whole.grad, strict=True)
    }
    assert {name.split(".")[1] for name in found} == {"k_0", "k_1", "k_2"}
    assert len(found) == sum(len(list(kind.parameters())) for kind in stack.kinds)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0, msg=name)
    # A step of the stack is a step of the kinds, and afterwards each has its weights to itself.
    with torch.no_grad():
        for whole, _ in stack.parameters:
            whole -= 1e-3 * whole.grad
    stack.undo()
    for name, gradient in found.items():
        moved = before[name] - 1e-3 * gradient
        torch.testing.assert_close(tzk.state_dict()[name], moved, rtol=0, atol=1e-15, msg=name)
    assert len({p.untyped_storage().data_ptr() for p in tzk.parameters()}) == len(names)


def test_stacked_kinds_train_in_no_other_company(tzk, batch):
    kinds = list(tzk.kinds().values())
    stack = Stack(kinds[:2])
    with pytest.raises(RuntimeError, match="another company"):
        worked_out(tzk, batch)
    stack.undo()
    worked_out(tzk, batch)
