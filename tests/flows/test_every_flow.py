"""Every layer and flow through every check."""

from __future__ import annotations

import flows.checks as checks
import pytest
import torch
from flows.registry import CASES

import tzk_core.flows as package
from tzk_core.flows import ImageFlow, Squeeze, VectorFlow

every = pytest.mark.parametrize("case", CASES, ids=str)


def test_the_registry_has_every_layer():
    made = {type(module) for case in CASES for module in case.build().modules()}
    exported = {getattr(package, name) for name in package.__all__}
    layers = {item for item in exported if isinstance(item, type)} - {package.Invertible}
    assert layers <= made


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 10.0], ids=["near", "far"])
def test_round_trip(case, dtype, scale):
    checks.check_round_trip(case, dtype, scale)


@every
@pytest.mark.parametrize("scale", [1.0, 10.0], ids=["near", "far"])
def test_determinants_are_those_of_autograd(case, scale):
    checks.check_determinants(case, scale)


@every
def test_every_parameter_gets_a_gradient(case):
    checks.check_gradients(case)


@every
def test_training_is_evaluation(case):
    checks.check_train_is_eval(case)


@every
def test_use_changes_nothing(case):
    checks.check_no_memory(case)


@every
def test_reloaded_into_another_instance(case):
    checks.check_reload(case)


@every
def test_rows_do_not_see_each_other(case):
    checks.check_rows(case)


@every
def test_nan_comes_out(case):
    checks.check_nan_stays_in_its_row(case)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name not in ("squeeze-2", "squeeze-3", "steps-none")], ids=str
)
def test_wrong_channels_are_refused(case):
    checks.check_wrong_shapes(case)


whole = pytest.mark.parametrize(
    "case", [c for c in CASES if c.name.startswith(("image-", "vector-"))], ids=str
)


@whole
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_flows_refuse_what_is_no_batch_of_floats(case, direction):
    flow = case.build()
    t, context = case.inputs(2)
    x = t if direction == "encode" else flow.encode(t, context)[0]
    call = getattr(flow, direction)
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        call(x.long(), context)
    with pytest.raises(TypeError, match="floating-point tensor, got ndarray"):
        call(x.detach().numpy(), context)
    with pytest.raises(ValueError, match=r"must have the shape \(B, "):
        call(x[0], context)
    with pytest.raises(ValueError, match=r"must have the shape \(B, "):
        call(x.unsqueeze(-1), context)


def test_squeeze_refuses_sides_it_cannot_divide():
    with pytest.raises(ValueError, match=r"2 divides, got \(1, 3, 5, 4\)"):
        Squeeze().encode(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ValueError, match=r"4 divides, got \(1, 3, 4, 4\)"):
        Squeeze().decode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="expected maps"):
        Squeeze().encode(torch.zeros(2, 4))


def test_sizes_that_cannot_be_made_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"multiples of 2\^levels = 8"):
        ImageFlow((1, 12, 16), levels=3, steps=1, width=4, generator=generator)
    with pytest.raises(ValueError, match=r"multiples of 2\^levels"):
        ImageFlow((1, 8, 8), levels=0, steps=1, width=4, generator=generator)
    with pytest.raises(ValueError, match="at least 2 channels, got 1"):
        package.Coupling(1, 4, generator, spatial=False)


def test_a_context_that_is_missing_is_refused():
    flow = VectorFlow(3, steps=1, width=4, generator=torch.Generator(), context=2)
    with pytest.raises(ValueError, match="made for a context"):
        flow.encode(torch.zeros(1, 3))


def test_the_context_reaches_the_flow():
    case = next(c for c in CASES if c.name == "steps-map-context")
    flow = case.build()
    t, context = case.inputs(3)
    assert not torch.allclose(flow.encode(t, context)[0], flow.encode(t, context + 1)[0])


def test_making_a_flow_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    for case in CASES:
        case.make(torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_abstract_layer_has_no_directions():
    layer = package.Invertible()
    with pytest.raises(NotImplementedError, match="Invertible has no encode"):
        layer.encode(torch.zeros(1, 1))
    with pytest.raises(NotImplementedError, match="Invertible has no decode"):
        layer.decode(torch.zeros(1, 1))
