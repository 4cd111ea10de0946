"""The prepared flow says what the plain modules say, in every precision and at every batch size."""

from __future__ import annotations

import pytest
import torch
from flows.registry import CASES, Case

from tzk_core.flows import ImageFlow
from tzk_core.flows import prepared as module
from tzk_core.flows.prepared import Prepared
from tzk_core.networks import run_networks_in

IMAGES = [case for case in CASES if case.name.startswith("image-")]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def _compare(flow: ImageFlow, prepared: Prepared, t: torch.Tensor, tolerance: float) -> None:
    with torch.no_grad():
        z, log_det = flow.encode(t)
        back, log_det_back = flow.decode(z)
    given = t.clone(), z.clone()
    for found, wanted in (
        (prepared.encode(t), (z, log_det)),
        (prepared.decode(z), (back, log_det_back)),
    ):
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            # A log-determinant is a sum over all elements of an observation.
            torch.testing.assert_close(one, other, atol=2 * tolerance, rtol=tolerance)
    assert torch.equal(t, given[0])
    assert torch.equal(z, given[1])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", IMAGES, ids=str)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_equals_the_plain_flow(case: Case, dtype: torch.dtype, batch: int):
    flow = case.build(dtype=dtype)
    _compare(flow, Prepared(flow), case.inputs(batch, dtype)[0], TOLERANCE[dtype])


@pytest.mark.parametrize("case", IMAGES[:2], ids=str)
def test_equals_it_where_torch_has_no_fused_layers(case: Case, monkeypatch):
    monkeypatch.setattr(module, "_fused", lambda dtype: False)
    flow = case.build(dtype=torch.float32)
    _compare(flow, Prepared(flow), case.inputs(5, torch.float32)[0], 1e-5)


def test_networks_run_in_the_precision_that_they_had():
    case = IMAGES[-2]
    flow = case.build(dtype=torch.float32)
    t = case.inputs(5, torch.float32)[0]
    exact = Prepared(flow).encode(t)[0]
    run_networks_in(flow, torch.bfloat16)
    with torch.no_grad():
        wanted = flow.encode(t)[0]
    found, _ = Prepared(flow).encode(t)
    # Both round to bfloat16, in other places; neither is what float32 says.
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)


def test_rows_of_a_smaller_batch_are_the_same():
    generator = torch.Generator().manual_seed(0)
    flow = ImageFlow((1, 16, 16), levels=2, steps=2, width=32, generator=generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    prepared, t = Prepared(flow), torch.rand(8, 1, 16, 16, generator=generator) - 0.5
    z = prepared.encode(t)[0]
    assert torch.equal(z, prepared.encode(t)[0])
    parts = torch.cat([prepared.encode(one)[0] for one in t.split(3)])
    torch.testing.assert_close(z, parts, atol=1e-6, rtol=1e-6)


def test_is_a_snapshot_and_keeps_no_gradient():
    case = IMAGES[0]
    flow = case.build(dtype=torch.float32)
    t = case.inputs(3, torch.float32)[0]
    prepared = Prepared(flow)
    before = prepared.encode(t)[0]
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1)
    assert torch.equal(prepared.encode(t)[0], before)
    assert not before.requires_grad


def test_another_precision_falls_to_the_plain_flow():
    case = IMAGES[0]
    flow = case.build(dtype=torch.float64)
    prepared = Prepared(flow)
    flow.float()
    t = case.inputs(2, torch.float32)[0]
    with torch.no_grad():
        assert torch.equal(prepared.encode(t)[0], flow.encode(t)[0])


@pytest.mark.parametrize("wrong", [(2, 1, 3, 8), (2, 8)])
def test_refuses_what_the_flow_refuses(wrong: tuple[int, ...]):
    prepared = Prepared(IMAGES[0].build())
    with pytest.raises(ValueError, match="shape"):
        prepared.encode(torch.zeros(wrong, dtype=torch.float64))
