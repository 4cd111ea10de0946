"""benchmarks/objectives.py from end to end on a tiny t-flow and a few real digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from scripts import script_module

from tzk_core.config import FlowConfig, TzKConfig
from tzk_core.model import TzK
from tzk_core.randomness import generator

SIZES = ["--steps", "2", "--batch", "8", "--samples", "2", "--images", "5", "--draws", "16"]


@pytest.fixture(scope="module")
def script():
    return script_module("objectives")


@pytest.fixture
def flow(tmp_path) -> Path:
    config = TzKConfig(observation=(1, 32, 32), flow=FlowConfig(levels=3, steps=1, width=8))
    TzK(config, generator=generator(0)).save_pretrained(tmp_path / "flow")
    return tmp_path / "flow"


def test_settings_are_compared_on_the_same_images_with_the_same_noise(script, flow, tmp_path):
    settings = ["--setting", "kl-1", "--setting", "blind", "--setting", "annealed"]
    where = ["--flow", str(flow), "--data", "builtin/mnist", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(script.objectives, [*where, "--limit", "300", *SIZES, *settings])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "objectives.json").read_text())
    assert list(report["settings"]) == ["kl-1", "blind", "annealed"]
    for found in report["settings"].values():
        assert found["read_1"]["count"] == 20  # two samples of each digit
        assert found["bound"]["count"] == 5
        assert found["information"]["cap"] > found["information"]["information"]["mean"]
    table = (tmp_path / "out" / "objectives.md").read_text().splitlines()
    assert [line.count("|") for line in table[4:]] == [len(script.HEADER) + 1] * 5
    # Hardly trained, but under objectives that differ: the same images, other weights.
    bounds = {found["bound"]["mean"] for found in report["settings"].values()}
    assert len(bounds) == 3
    assert max(bounds) - min(bounds) < 1
