"""Overlapping kinds whose product is known exactly: composition's samples against it.

Every kind is linear and Gaussian with a bump for p(e=1|c), so that p(t|e=1) is a Gaussian, and the
product of several over p(t)^(K−1) is one too. Both samplers (in closed form without z-flows, by
tempered sequential Monte Carlo with them) have to pass the two-sample test that one kind alone
fails; its false-alarm rate is 1e-6 each, and the seeds are fixed.
"""

from __future__ import annotations

import pytest
import torch
from model.linear_gaussian import Bump, Kind, Normal, generator, tensor, undo_coupling, write_into
from model.two_sample import differ
from torch import Tensor

from tzk_core.composition import LowSampleSize
from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.errors import InvalidRequest
from tzk_core.model import TzK

SAMPLES = 600
SAMPLERS = pytest.mark.parametrize("z_steps", [0, 2], ids=["closed form", "tempered"])
FLOW = (tensor([1.3, 0.4], [-0.3, 0.9]), tensor(0.2, -0.3))
BELOW = (tensor([1.1, -0.2], [0.3, 1.2]), tensor(-0.1, 0.2))


def kind(flow: tuple[Tensor, Tensor], side: float) -> Kind:
    """Codes push z to one side, p(e=1|c) to the other."""
    return Kind(
        flow=flow,
        weights=[torch.diag(tensor(0.4, 0.3)), tensor([0.6, 0.2], [-0.1, 0.5])],
        biases=[tensor(-0.2 * side, 0.3), tensor(0.3 * side, -0.2)],
        sigmas=[tensor(0.7, 0.8), tensor(0.6, 0.5)],
        exists=Bump(0.8, tensor(-1.1 * side, 0.8), torch.diag(tensor(1.5, 0.9))),
        seen=Bump(0.9, tensor(0.1, 0.4), tensor([0.8, 0.2], [0.2, 0.5])),
    )


def add(model: TzK, path: str, truth: Kind, z_steps: int) -> None:
    small = KnowledgeConfig(
        code_dim=2, z_steps=z_steps, z_context=False, code_steps=1, code_width=2, z_width=2
    )
    model.add_knowledge(path, small, generator=generator(1))
    model.double()
    above, _, name = path.rpartition("/")
    write_into(model.find(above).child if above else model, name, truth)
    with torch.no_grad():
        for decoder in model.find(path).decoders:
            undo_coupling(decoder.flow)


def made(flow, names: str, z_steps: int, below: str = "") -> tuple[TzK, dict[str, Kind]]:
    truths = {name: kind(flow, side) for name, side in zip(names, (1, -1, 0.5), strict=False)}
    model = TzK(
        TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=2)), generator=generator(0)
    )
    if below:
        add(model, below, kind(FLOW, 1), 0)
    for name, truth in truths.items():
        add(model, f"{below}/{name}" if below else name, truth, z_steps)
    return model.eval(), truths


def product(flow: tuple[Tensor, Tensor], parts: list[Normal]) -> Normal:
    """∏ parts / p(t)^(K−1) with p(t) of z = A·t + a ~ N(0, I), by adding up precisions."""
    matrix, shift = flow
    inverse = torch.linalg.inv(matrix)
    prior = Normal(-inverse @ shift, inverse @ inverse.T)
    spare = len(parts) - 1
    signed = [(1, part) for part in parts] + [(-spare, prior)]
    precision = sum(sign * torch.linalg.inv(part.cov) for sign, part in signed)
    weighted = sum(sign * torch.linalg.solve(part.cov, part.mean) for sign, part in signed)
    assert (torch.linalg.eigvalsh(precision) > 0).all()
    return Normal(torch.linalg.solve(precision, weighted), torch.linalg.inv(precision))


@SAMPLERS
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_present_together(z_steps: int, names: str) -> None:
    model, kinds = made(FLOW, names, z_steps)
    drawn = model.given(*names).draw(SAMPLES, seed=3)
    truth = product(FLOW, [kind.present for kind in kinds.values()])
    assert not differ(drawn.images, truth.sample(SAMPLES, generator(0)))
    alone = model.given("a").draw(SAMPLES, seed=3).images
    assert differ(alone, truth.sample(SAMPLES, generator(0)))
    assert drawn.effective_sample_size > 4


@SAMPLERS
def test_without_existence_it_would_fail(z_steps: int) -> None:
    """p(e=1|c) is told by the test: the product with c from its prior is another."""
    model, kinds = made(FLOW, "ab", z_steps)
    drawn = model.given("a", "b").draw(SAMPLES, seed=3).images
    shortcut = product(FLOW, [kind.decoded(kind.code_prior, 1) for kind in kinds.values()])
    assert differ(drawn, shortcut.sample(SAMPLES, generator(0)))


@SAMPLERS
def test_present_and_absent(z_steps: int) -> None:
    """p(t|e=0) is a Gaussian less a part of it; its product is drawn here by rejection."""
    model, kinds = made(FLOW, "ab", z_steps)
    drawn = model.given("a", absent=["b"]).draw(SAMPLES, seed=5).images
    b = kinds["b"]
    whole, part = b.decoded(b.code_prior, 0), b.decoded(b.code, 0)
    t = product(FLOW, [kinds["a"].present, whole]).sample(8 * SAMPLES, generator(0))
    removed = b.existence * (part.log_prob(t) - whole.log_prob(t)).exp()
    u = torch.rand(len(t), generator=generator(1), dtype=t.dtype)
    assert not differ(drawn, t[u > removed][:SAMPLES])
    both = product(FLOW, [kind.present for kind in kinds.values()])
    assert differ(drawn, both.sample(SAMPLES, generator(2)))


@SAMPLERS
def test_siblings_below_a_parent(z_steps: int) -> None:
    """They compose in the parent's code, which its decoder then makes observations of."""
    model, kinds = made(BELOW, "ab", z_steps, below="top")
    drawn = model.given("top/a", "top/b").draw(SAMPLES, seed=7)
    code = product(BELOW, [kind.present for kind in kinds.values()])
    assert not differ(drawn.codes[0], code.sample(SAMPLES, generator(0)))
    truth = kind(FLOW, 1).decoded(code, 1)
    assert not differ(drawn.images, truth.sample(SAMPLES, generator(1)))
    assert differ(drawn.codes[0], kind(FLOW, 1).code.sample(SAMPLES, generator(0)))


def test_what_cannot_be_reached_is_told(monkeypatch) -> None:
    model, _ = made(FLOW, "ab", 2)
    monkeypatch.setattr("tzk_core.smc.STEPS", 1)
    with pytest.raises(InvalidRequest, match="a, b cannot be sampled together: 1 temperatures"):
        model.given("a", "b").draw(2, seed=0)
    monkeypatch.undo()
    with torch.no_grad():
        model.find("b").decoders[1].head.shift.fill_(float("nan"))
    with pytest.raises(InvalidRequest, match="a, b cannot be sampled together: their density"):
        model.given("a", "b").draw(2, seed=0)


def test_kinds_far_apart_are_warned_of() -> None:
    model, _ = made(FLOW, "ab", 2)
    with torch.no_grad():
        model.find("b").decoders[1].head.shift.fill_(9.0)
    with pytest.warns(LowSampleSize, match="a, b is"):
        drawn = model.given("a", "b").draw(2, seed=0)
    assert drawn.effective_sample_size < 4
