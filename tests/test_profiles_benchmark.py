"""Profiles of functions of which it is known what takes their time."""

from __future__ import annotations

import pytest
import torch
from scripts import script_module

profiles = script_module("profiles")


def test_products_are_told_from_the_rest():
    a = torch.randn(400, 400)

    def product() -> torch.Tensor:
        return a @ a

    def other() -> torch.Tensor:
        return torch.nn.functional.silu(a)

    for run, multiply in ((product, True), (other, False)):
        found = profiles.profiled(run, "cpu")
        assert sum(found["shares"].values()) == pytest.approx(1)
        assert (found["multiply"] > 0.5) == multiply
        assert found["operators"] >= 1
    first = profiles.largest(profiles.profiled(other, "cpu")).split()[0]
    assert first == "silu"


def test_what_a_compiler_made_is_one_entry():
    assert profiles._plain("## Call CompiledFxGraph f6jyw ##") == "compiled code"
    assert profiles._plain("Torch-Compiled Region: 5/0") == "compiled code"
    assert profiles._plain("aten::mm") == "mm"
