"""Activations that are worked out again give the gradients of those that were kept."""

from __future__ import annotations

import pytest
import torch
from flows.registry import CASES

from tzk_core.flows import Coupling, ImageFlow, recompute_networks

WITH_COUPLINGS = [
    case for case in CASES if any(isinstance(m, Coupling) for m in case.build().modules())
]


def gradients(flow, t, context, direction: str) -> list[torch.Tensor]:
    flow.zero_grad()
    t = t.clone().requires_grad_()
    z, log_det = getattr(flow, direction)(t, context)
    (z.square().sum() / 2 - log_det.sum()).backward()
    return [z.detach(), log_det.detach(), t.grad, *(p.grad.clone() for p in flow.parameters())]


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("case", WITH_COUPLINGS, ids=str)
def test_the_same_gradients_to_the_bit(case, direction):
    flow = case.build()
    x, context = case.inputs(3)
    if direction == "decode":
        x = flow.encode(x, context)[0].detach()
    kept = gradients(flow, x, context, direction)
    recompute_networks(flow, True)
    again = gradients(flow, x, context, direction)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def kept_elements(recompute: bool) -> int:
    """Elements that autograd keeps for the way back, parameters not counted."""
    flow = ImageFlow((3, 16, 16), levels=2, steps=8, width=64, generator=torch.Generator())
    recompute_networks(flow, recompute)
    own = {p.untyped_storage().data_ptr() for p in flow.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = flow.encode(torch.randn(2, 3, 16, 16, generator=torch.Generator()))
    assert result
    return sum(seen.values())


def test_it_keeps_less():
    assert kept_elements(True) <= kept_elements(False) / 4


def test_without_gradients_nothing_is_recomputed(monkeypatch):
    import tzk_core.flows.coupling as module

    def never(*_, **__):
        raise AssertionError("checkpoint was used")

    monkeypatch.setattr(module, "checkpoint", never)
    case = WITH_COUPLINGS[0]
    flow = case.build()
    recompute_networks(flow, True)
    with torch.no_grad():
        flow.encode(*case.inputs(2))
