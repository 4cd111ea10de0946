"""benchmarks/budgets.py from end to end on a tiny recipe and a few real digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from scripts import script_module
from training.tiny_recipe import tiny_values

from tzk_core.data.decoding import encode_png
from tzk_core.training.recipe import parse_recipe


@pytest.fixture(scope="module")
def script():
    module = script_module("budgets")
    module.SHOWN = 64
    return module


@pytest.fixture
def data(tmp_path, mnist) -> Path:
    folder = tmp_path / "data"
    for split, some in (("train", slice(0, 25)), ("test", slice(25, 30))):
        for digit in (3, 4):
            (folder / split / str(digit)).mkdir(parents=True)
            for number, pixels in enumerate(mnist.pixels[mnist.labels == digit][some]):
                (folder / split / str(digit) / f"{number}.png").write_bytes(encode_png(pixels))
    return folder


@pytest.fixture
def recipe(tmp_path, data) -> Path:
    values = tiny_values(str(data))
    values["data"]["sources"] = values["data"]["sources"][:1]
    values["data"]["holdout"] = 0.2
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_budget_is_measured_by_one_judge_and_finished_ones_are_taken(
    script, recipe, data, tmp_path
):
    out = tmp_path / "out"
    asked = [str(recipe), "--data", str(data), "--samples", "3", "--device", "cpu"]
    first = CliRunner().invoke(script.budgets, [*asked, "--share", "0.5", "--out", str(out)])
    assert first.exit_code == 0, first.output
    weights = (out / "share-0.5" / "model.safetensors").read_bytes()
    more = ["--share", "1", "--share", "0.5", "--out", str(out)]
    second = CliRunner().invoke(script.budgets, [*asked, *more])
    assert second.exit_code == 0, second.output
    assert (out / "share-0.5" / "model.safetensors").read_bytes() == weights
    report = json.loads((out / "budgets.json").read_text())
    half, whole = report["budgets"]  # the smaller first
    assert (half["run"], whole["run"]) == ("share-0.5", "share-1")
    assert half["images_seen"] == 5 * 8 + 2 * 16
    assert whole["images_seen"] == 10 * 8 + 5 * 16
    assert half["read_as_asked"]["0.7"]["count"] == 6  # three samples of each of two digits
    assert (out / "budgets.png").read_bytes()[:4] == b"\x89PNG"
    assert "share-0.5" in (out / "budgets.md").read_text()
    other = ["--share", "0.5", "--set", "seed=7", "--out", str(out)]
    refused = CliRunner().invoke(script.budgets, [*asked, *other])
    assert refused.exit_code == 2
    assert "holds a run by another recipe" in refused.output
    assert (out / "share-0.5" / "model.safetensors").read_bytes() == weights


def test_a_share_is_of_every_stage_and_leaves_one_step(script, recipe):
    values = yaml.safe_load(recipe.read_text())
    short = script.shortened(parse_recipe(values, title="tiny"), 0.01)
    assert [stage.steps for stage in short.stages] == [1, 1]
    assert short.data == parse_recipe(values, title="tiny").data


def test_a_recipe_without_classes_is_refused(script, data, tmp_path):
    told = ["typicality", "--data", str(data), "--share", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(script.budgets, told)
    assert result.exit_code == 2
    assert "with classes" in result.output
