"""The prepared flow says what the plain modules say, in every precision and at every batch size."""

from __future__ import annotations

import pytest
import torch
from flows.registry import CASES, Case
from tiny_model import tiny_model
from torch.nn.functional import logsigmoid

from tzk_core.flows import ImageFlow
from tzk_core.flows import prepared as module
from tzk_core.flows.lone import LONE_WIDTH, lone_network
from tzk_core.flows.prepared import Prepared
from tzk_core.networks import CouplingNetwork, run_networks_in
from tzk_core.randomness import generator
from tzk_core.service.backends import prepare

IMAGES = [case for case in CASES if case.name.startswith("image-")]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture
def one_thread(monkeypatch):
    """With which alone a batch of one has layers of its own."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


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
@pytest.mark.parametrize("batch", [0, 1, 2, 5])
@pytest.mark.parametrize("lone", [False, True])
@pytest.mark.usefixtures("one_thread")
def test_equals_the_plain_flow(case: Case, dtype: torch.dtype, batch: int, lone: bool):
    flow = case.build(dtype=dtype)
    _compare(flow, Prepared(flow, lone=lone), case.inputs(batch, dtype)[0], TOLERANCE[dtype])


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


def _narrow() -> ImageFlow:
    source = generator(0)
    flow = ImageFlow((1, 16, 16), levels=2, steps=2, width=32, generator=source)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=source))
    return flow


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=generator(1)) - 0.5


def test_rows_of_a_smaller_batch_are_the_same():
    prepared, t = Prepared(_narrow()), _images(8)
    z = prepared.encode(t)[0]
    assert torch.equal(z, prepared.encode(t)[0])
    parts = torch.cat([prepared.encode(one)[0] for one in t.split(3)])
    torch.testing.assert_close(z, parts, atol=1e-6, rtol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_only_a_batch_of_one_is_alone_and_only_where_it_is_asked_for():
    flow, t = _narrow(), _images(8)
    usual, lone = Prepared(flow), Prepared(flow, lone=True)
    z = usual.encode(t)[0]
    for rows in (t[:1], t[:2], t):
        same = [
            torch.equal(a, b)
            for a, b in zip(
                (*lone.encode(rows), *lone.decode(z[: len(rows)])),
                (*usual.encode(rows), *usual.decode(z[: len(rows)])),
                strict=True,
            )
        ]
        assert all(same) == (len(rows) > 1)


@pytest.mark.usefixtures("one_thread")
def test_what_serves_never_goes_alone(monkeypatch):
    """A worker's rows have the same bits at any size of batch that it found; see the sizes."""
    made = []
    monkeypatch.setattr(module, "lone_network", lambda network: made.append(network))
    model = tiny_model()
    prepare(model)
    model.flow.encode(_images(1))
    assert not made
    Prepared(tiny_model().flow, lone=True)
    assert made


@pytest.mark.parametrize(
    ("width", "weights", "networks", "threads", "goes"),
    [
        (LONE_WIDTH, torch.float32, None, 1, True),
        (LONE_WIDTH, torch.float32, torch.float32, 1, True),
        (LONE_WIDTH + 1, torch.float32, None, 1, False),
        (8, torch.float32, torch.bfloat16, 1, False),
        (8, torch.float64, None, 1, False),
        (8, torch.float32, None, 2, False),
    ],
)
def test_which_networks_go_alone(width, weights, networks, threads, goes, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    network = CouplingNetwork(2, 4, width, generator(0), spatial=True)
    run_networks_in(network.to(weights), networks)
    assert (lone_network(network) is not None) == goes


@pytest.mark.usefixtures("one_thread")
def test_a_lone_log_scale_keeps_to_its_bounds():
    """Where σ(s + 2) is 0 or 1 to rounding, and beyond what e^s can hold."""
    network = CouplingNetwork(1, 2, 4, generator(0), spatial=True)
    alone = torch.zeros(1, 1, 2, 2)
    for s in (-1e30, -100.0, -42.0, -2.0, 0.0, 42.0, 100.0, 1e30):
        with torch.no_grad():
            network.last.bias[1] = s
        wanted = -6 * torch.tanh(logsigmoid(torch.tensor(s + 2)) / -6)
        log_scale = lone_network(network)(alone)[1]
        torch.testing.assert_close(log_scale, wanted.expand_as(log_scale), atol=1e-6, rtol=1e-6)


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
