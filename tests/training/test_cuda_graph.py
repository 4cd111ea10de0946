"""The t-flow's part of a step as a CUDA graph: the same losses and the same gradients.

Run with ``pytest -m gpu``; left out where there is no CUDA.
"""

from __future__ import annotations

import pytest
import torch

from tzk_core.devices import repeatable
from tzk_core.training.recipe import parse_recipe
from tzk_core.training.run import train

pytestmark = pytest.mark.gpu


def trained(values: dict, out, graphed: bool) -> dict[str, torch.Tensor]:
    values["stages"] = [
        {"train": "flow", "steps": 10, "batch": 8, "cuda_graph": graphed},
        {"train": "knowledge", "steps": 5, "batch": 8},
        {"train": "all", "steps": 10, "batch": 8, "cuda_graph": graphed, "accumulate": 2},
    ]
    model = train(parse_recipe(values), out=out, device="cuda", quiet=True)
    return {name: value.cpu() for name, value in model.named_parameters()}


def test_same_weights_with_and_without(values, tmp_path):
    repeatable()
    plain = trained(values(), tmp_path / "plain", False)
    graphed = trained(values(), tmp_path / "graphed", True)
    assert plain.keys() == graphed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(graphed[name], value, rtol=1e-3, atol=1e-4, msg=name)
