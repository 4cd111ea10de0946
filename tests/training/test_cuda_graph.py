"""The t-flow's part of a step as a CUDA graph: the same losses and the same gradients.

Run with ``pytest -m gpu``; left out where there is no CUDA.
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from tzk_core.devices import repeatable
from tzk_core.graphs import GraphedStep
from tzk_core.objective import ObjectiveConfig
from tzk_core.siblings import Stack
from tzk_core.training.graphed import GraphedObjective
from tzk_core.training.recipe import parse_recipe
from tzk_core.training.run import train

pytestmark = pytest.mark.gpu


def trained(values: dict, out, graphed: bool) -> dict[str, torch.Tensor]:
    values["stages"] = [
        {"train": "flow", "steps": 10, "batch": 8, "cuda_graph": graphed},
        {"train": "knowledge", "steps": 1, "batch": 8, "cuda_graph": graphed},
    ]
    model = train(parse_recipe(values), out=out, device="cuda", quiet=True)
    return {name: value.cpu() for name, value in model.flow.named_parameters()}


def test_same_flow_with_and_without(values, tmp_path):
    """Knowledge draws its codes' noise for other rows in a graph, so its weights may differ."""
    repeatable()
    plain = trained(values(), tmp_path / "plain", False)
    graphed = trained(values(), tmp_path / "graphed", True)
    assert plain.keys() == graphed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(graphed[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_every_stage_runs_and_changes_what_it_trains(values, tmp_path):
    given = values()
    kinds = ["flow", "knowledge", "all", "children"]
    given["stages"] = [{"train": one, "steps": 6, "batch": 8} for one in kinds]
    model = train(parse_recipe(given), out=tmp_path / "run", device="cuda", quiet=True)
    rows = [
        json.loads(row)
        for row in (tmp_path / "run" / "metrics.jsonl").read_text().split("\n")
        if row
    ]
    assert {row["stage"] for row in rows} == {0, 1, 2, 3}
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)
    assert set(model.paths()) >= {"mnist", "mnist/0", "mnist/1"}
    for accumulate in (2, 3):
        again = given | {
            "stages": [{"train": "flow", "steps": 6, "batch": 8, "accumulate": accumulate}]
        }
        train(parse_recipe(again), out=tmp_path / str(accumulate), device="cuda", quiet=True)


def test_the_same_objective_with_its_gradient(values, tmp_path):
    """A step by the graphs against the same function launched kernel by kernel."""
    repeatable()
    given = values()
    given["stages"] = [{"train": "all", "steps": 3, "batch": 8}]
    model = train(parse_recipe(given), out=tmp_path / "run", device="cuda", quiet=True).cuda()
    generator = torch.Generator().manual_seed(0)
    found = []
    for record in (GraphedStep, lambda function, *_: Plain(function)):
        stacks = [Stack([model.find("mnist/0"), model.find("mnist/1")])]
        stacked = {id(one) for stack in stacks for _, each in stack.parameters for one in each}
        parameters = [p for p in model.parameters() if id(p) not in stacked]
        parameters += [whole for stack in stacks for whole, _ in stack.parameters]
        graphed = GraphedObjective(
            model,
            parameters,
            ObjectiveConfig(),
            {"flow": True, "knowledge": True, "parents": True},
            list(model.paths()),
            record,
        )
        generator.manual_seed(0)
        for step in range(4):
            t = torch.randn(8, *model.observation_shape, generator=generator).cuda()
            e = {
                p: torch.randint(-1, 2, (8,), generator=generator).char().cuda()
                for p in model.paths()
            }
            for parameter in parameters:
                parameter.grad = None
            terms = graphed(t, None, e, {}, generator, step)
            terms.total.backward()
        found.append(
            (float(terms.total), [None if p.grad is None else p.grad.clone() for p in parameters])
        )
        for stack in stacks:
            stack.undo()
    (total, gradients), (expected, plain) = found
    assert total == pytest.approx(expected, rel=1e-5)
    for mine, theirs in zip(gradients, plain, strict=True):
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


class Plain:
    """Where a graph would be: the function itself."""

    def __init__(self, function) -> None:
        self.function = function

    def fits(self, inputs) -> bool:
        return True

    def __call__(self, *inputs):
        return self.function(*inputs)
