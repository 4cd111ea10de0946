"""Networks in bfloat16 within a flow that stays in float32."""

from __future__ import annotations

import pytest
import torch
from flows.registry import perturb

from tzk_core.flows import ImageFlow, VectorFlow, recompute_networks
from tzk_core.networks import CouplingNetwork, ImageTrunk, MapHead, VectorTrunk, run_networks_in


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flows() -> list:
    image = ImageFlow((3, 8, 8), levels=2, steps=3, width=32, generator=generator())
    vector = VectorFlow(6, steps=4, width=32, generator=generator())
    made = [(image, (3, 8, 8)), (vector, (6,))]
    return [(perturb(flow, generator(1)), shape) for flow, shape in made]


@pytest.mark.parametrize("number", [0, 1], ids=["image", "vector"])
def test_the_flow_s_own_arithmetic_stays_float32(number):
    flow, shape = flows()[number]
    t = torch.randn(16, *shape, generator=generator(2))
    plain = flow.encode(t)
    run_networks_in(flow, torch.bfloat16)
    z, log_det = flow.encode(t)
    assert z.dtype == log_det.dtype == torch.float32
    # It ran in another precision: equal to about eight bits, and not to more.
    assert 1e-6 < float((z - plain[0]).abs().max()) < 0.1
    assert 1e-6 < float((log_det - plain[1]).abs().max()) < 2
    # Couplings are undone by what they were done with, so the inverse has float32's precision,
    # which a flow in bfloat16 (8 bits) or under a blanket autocast could not have.
    back, inverse = flow.decode(z)
    assert float((back - t).abs().max()) < 2e-5
    assert float((inverse + log_det).abs().max()) < 2e-4
    run_networks_in(flow, None)
    again = flow.encode(t)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_float32_and_nearly_the_same(recompute):
    flow, shape = flows()[0]
    t = torch.randn(16, *shape, generator=generator(2))

    def gradient() -> torch.Tensor:
        flow.zero_grad()
        z, log_det = flow.encode(t)
        (z.square().sum() / 2 - log_det.sum()).backward()
        assert all(p.grad.dtype == torch.float32 for p in flow.parameters())
        return torch.cat([p.grad.flatten() for p in flow.parameters()])

    plain = gradient()
    run_networks_in(flow, torch.bfloat16)
    recompute_networks(flow, recompute)
    rough = gradient()
    assert float((rough - plain).norm() / plain.norm()) < 0.03
    assert not torch.equal(rough, plain)


def each(found: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (found,) if isinstance(found, torch.Tensor) else found


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (CouplingNetwork(2, 4, 8, generator(), spatial=True), (2, 4, 4)),
        (CouplingNetwork(2, 4, 8, generator(), spatial=False), (2,)),
        (ImageTrunk((3, 8, 8), 5, 8, generator()), (3, 8, 8)),
        (ImageTrunk((3, 8, 8), 5, 8, generator(), head="pool", paper=True), (3, 8, 8)),
        (VectorTrunk(4, 5, 8, generator()), (4,)),
        (MapHead(4, (6, 2, 2), 8, generator(), stem=4), (4,)),
        (MapHead(4, (6, 2, 2), 8, generator(), stem=4, hidden=(7, 5)), (4,)),
    ],
    ids=["map", "vector", "trunk", "paper", "vector-trunk", "head", "deeper-head"],
)
def test_every_network(network, shape):
    perturb(network, generator(1), 0.3)
    x = torch.randn(4, *shape, generator=generator(2))
    plain = each(network(x))
    run_networks_in(network, torch.bfloat16)
    seen = []
    inner = [m for m in network.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    for module in inner:
        module.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    rough = each(network(x))
    assert set(seen) == {torch.bfloat16}
    for got, wanted in zip(rough, plain, strict=True):
        assert got.dtype == torch.float32
        assert torch.allclose(got, wanted, atol=0.05 * float(wanted.abs().max()))
    # Of none there are none: parts of a batch may hold no row of a kind.
    assert [out.shape for out in each(network(x[:0]))] == [out[:0].shape for out in plain]
    # float64 stays what it is.
    assert {out.dtype for out in each(network.double()(x.double()))} == {torch.float64}
