"""What must hold of every layer and flow; each check takes a case of the registry.

They are functions, so that test_planted_faults.py can show that each of them fails where it should.
"""

from __future__ import annotations

import pytest
import torch
from flows.registry import Case
from safetensors.torch import load, save
from torch import Tensor
from torch.autograd.functional import jacobian

__all__ = [
    "check_determinants",
    "check_gradients",
    "check_nan_stays_in_its_row",
    "check_no_memory",
    "check_reload",
    "check_round_trip",
    "check_rows",
    "check_train_is_eval",
    "check_wrong_shapes",
]

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def check_round_trip(case: Case, dtype: torch.dtype, scale: float = 1.0) -> None:
    """decode(encode(t)) = t and encode(decode(z)) = z, to 1e-4 or 1e-9 of the inputs' scale."""
    flow = case.build(dtype=dtype)
    t, context = case.inputs(16, dtype, scale)
    with torch.no_grad():
        z, log_det = flow.encode(t, context)
        back, inverse_log_det = flow.decode(z, context)
        noise = scale * torch.randn(z.shape, generator=_generator(3), dtype=dtype)
        t_of_noise, _ = flow.decode(noise, context)
        again, _ = flow.encode(t_of_noise, context)
    tolerance = TOLERANCE[dtype] * scale
    assert z.dtype == log_det.dtype == dtype
    assert log_det.shape == (16,)
    assert z.numel() == t.numel()
    assert _largest(back - t) <= tolerance
    assert _largest(again - noise) <= tolerance
    # The two determinants cancel to the rounding of their own size.
    size = max(1.0, float(log_det.abs().max()))
    assert _largest(log_det + inverse_log_det) <= tolerance * size


def check_determinants(case: Case, scale: float = 1.0) -> None:
    """Both log-determinants against the Jacobian that autograd gives, in float64."""
    flow = case.build()
    t, context = case.inputs(2, scale=scale)
    with torch.no_grad():
        z, log_det = flow.encode(t, context)
        _, inverse_log_det = flow.decode(z, context)
    for row in range(len(t)):
        own = None if context is None else context[row : row + 1]
        there = _log_abs_det(lambda x, own=own: flow.encode(x, own)[0], t[row])
        back = _log_abs_det(lambda x, own=own: flow.decode(x, own)[0], z[row])
        size = max(1.0, abs(there))
        assert float(log_det[row]) == pytest.approx(there, abs=1e-8 * size)
        assert float(inverse_log_det[row]) == pytest.approx(back, abs=1e-8 * size)
        assert back == pytest.approx(-there, abs=1e-7 * size)
    if case.volume_preserving:
        assert torch.equal(log_det, torch.zeros_like(log_det))
    else:
        assert (log_det != 0).all(), "a determinant of one tests nothing here"


def check_gradients(case: Case) -> None:
    """Every parameter moves something, in either direction; so does the input."""
    for direction in ("encode", "decode"):
        flow = case.build()
        x, context = case.inputs(4)
        if direction == "decode":
            x = flow.encode(x, context)[0].detach()
        x.requires_grad_()
        out, log_det = getattr(flow, direction)(x, context)
        (out.square().sum() + log_det.sum()).backward()
        assert x.grad.isfinite().all()
        assert (x.grad != 0).any()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, f"{direction} leaves {name} without a gradient"
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), f"the gradient of {name} is zero in {direction}"


def check_train_is_eval(case: Case) -> None:
    """The mode changes nothing."""
    flow = case.build()
    t, context = case.inputs(3)
    with torch.no_grad():
        a = (*flow.train().encode(t, context), *flow.decode(flow.encode(t, context)[0], context))
        b = (*flow.eval().encode(t, context), *flow.decode(flow.encode(t, context)[0], context))
    assert _same(a, b)


def check_no_memory(case: Case) -> None:
    """Using a flow leaves its parameters, its buffers and its input as they were."""
    flow = case.build().train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    t, context = case.inputs(3)
    kept = t.clone()
    flow.decode(flow.encode(t, context)[0], context)
    assert torch.equal(t, kept)
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())


def check_reload(case: Case) -> None:
    """All there is to a flow is in its state: another instance with it is the same flow."""
    flow, other = case.build(seed=0), case.build(seed=99)
    # Weights of convolutions lie channels last, which the file format has no word for.
    state = {key: value.contiguous() for key, value in flow.state_dict().items()}
    other.load_state_dict(load(save(state)), strict=True)
    t, context = case.inputs(5)
    with torch.no_grad():
        z, log_det = flow.encode(t, context)
        assert _same((z, log_det), other.encode(t, context))
        assert _same(flow.decode(z, context), other.decode(z, context))


def check_rows(case: Case) -> None:
    """A row's answer does not depend on who else is in the batch, nor on there being anyone."""
    flow = case.build()
    t, context = case.inputs(6)
    pick = [4, 1]
    with torch.no_grad():
        whole = flow.encode(t, context)
        part = flow.encode(t[pick], None if context is None else context[pick])
        whole_back = flow.decode(whole[0], context)
        part_back = flow.decode(part[0], None if context is None else context[pick])
        empty = flow.encode(t[:0], None if context is None else context[:0])
    for a, b in zip((*whole, *whole_back), (*part, *part_back), strict=True):
        # Another batch size may take another kernel: equal to rounding, not to the bit.
        assert torch.allclose(a[pick], b, rtol=1e-12, atol=1e-12)
    assert empty[0].shape == (0, *whole[0].shape[1:])
    assert empty[1].shape == (0,)


def check_nan_stays_in_its_row(case: Case) -> None:
    """A NaN comes out as a NaN, of its own row only: nothing hides it."""
    flow = case.build()
    t, context = case.inputs(3)
    t[1].flatten()[0] = float("nan")
    with torch.no_grad():
        z, _ = flow.encode(t, context)
    assert z[1].isnan().any()
    assert z[[0, 2]].isfinite().all()


def check_wrong_shapes(case: Case) -> None:
    """Another number of channels is refused, with the shape that was passed in the message."""
    flow = case.build()
    t, context = case.inputs(2)
    z, _ = flow.encode(t, context)
    for direction, x in (("encode", t), ("decode", z)):
        one_more = torch.cat((x, x[:, :1]), dim=1)
        with pytest.raises(ValueError, match=r"expected|must have") as caught:
            getattr(flow, direction)(one_more, context)
        assert str(tuple(one_more.shape)) in str(caught.value)


def _log_abs_det(function, x: Tensor) -> float:
    def flat(v: Tensor) -> Tensor:
        return function(v.reshape(1, *x.shape)).flatten()

    return float(torch.linalg.slogdet(jacobian(flat, x.flatten(), vectorize=True))[1])


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _largest(difference: Tensor) -> float:
    # max of |·| is NaN if there is one, and no comparison with NaN holds.
    return float(difference.abs().max())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
