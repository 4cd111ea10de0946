"""A served model's parts as CUDA graphs: the same answers.

Run with ``pytest -m gpu``; left out where there is no CUDA.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.devices import repeatable
from tzk_core.graphs import RECORDED_AT, Graphed
from tzk_core.service.backends import parts, use_backend

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("rows", [1, 4])
def test_every_part_gives_the_same_numbers(rows):
    repeatable()
    model = tiny_model().cuda()
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for part in parts(model):
            graphed = Graphed(part.function)
            for _ in range(RECORDED_AT + 2):
                given = [torch.randn(rows, *shape, generator=generator) for shape in part.inputs]
                given = [one.cuda() for one in given]
                torch.testing.assert_close(graphed(*given), part.function(*given), rtol=0, atol=0)
            assert len(graphed._recorded) == 1, part.name


def test_what_a_call_returns_is_not_overwritten():
    graphed = Graphed(lambda x: x + 1)
    given = [torch.full((3,), float(n), device="cuda") for n in range(5)]
    got = [graphed(one) for one in given]
    assert [float(one[0]) for one in got] == [1, 2, 3, 4, 5]


def test_gradients_are_of_the_plain_function():
    model = tiny_model().cuda()
    z = torch.randn(2, *model.latent_shape, device="cuda", requires_grad=True)
    (plain,) = torch.autograd.grad(model.flow.decode(z)[0].square().sum(), z)
    assert use_backend(model, Path(), {}) == "torch"
    with torch.inference_mode():
        for _ in range(RECORDED_AT + 1):
            model.flow.decode(z.detach())
    (graphed,) = torch.autograd.grad(model.flow.decode(z)[0].square().sum(), z)
    torch.testing.assert_close(graphed, plain)
