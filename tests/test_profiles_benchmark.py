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


def test_an_activation_within_a_layer_is_told_from_its_multiplications():
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no fused layers")
    x, weight, bias = torch.randn(2000, 4), torch.randn(64, 4), torch.randn(64)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    lowest = []

    def layers() -> None:
        multiply(x, weight, bias, "none", [], "")
        lowest.append(multiply(x, weight, bias, "swish", [], "").min())

    found = profiles.profiled(layers, "cpu")
    fused = found["fused"]
    assert fused["layers"] == 2
    assert fused["ms"] > 0
    assert fused["ms_without"] > 0
    assert fused["activation"] < 1
    within = found["shares"]["mkldnn::_linear_pointwise"]
    assert found["multiply_alone"] == pytest.approx(
        found["multiply"] - within * fused["activation"]
    )
    # In turn with SiLU, which is nowhere below -0.28, and without.
    turns = torch.stack(lowest[-2 * profiles.TURNS :]) < -0.28
    assert turns.tolist() == [False, True] * profiles.TURNS


def test_without_fused_layers_multiplications_are_alone():
    a = torch.randn(100, 100)
    found = profiles.profiled(lambda: a @ a, "cpu")
    assert found["fused"] is None
    assert found["multiply_alone"] == found["multiply"]
    assert profiles.fused(lambda: a @ a) is None
