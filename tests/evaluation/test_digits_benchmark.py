"""benchmarks/digits.py from end to end on a tiny model and a few real digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from scripts import script_module
from tiny_model import tiny_model

from tzk_core.config import KnowledgeConfig
from tzk_core.data.decoding import encode_png
from tzk_core.randomness import generator


@pytest.fixture(scope="module")
def script():
    module = script_module("digits")
    module.SHOWN, module.DRAWS = 64, (1, 16)
    return module


@pytest.fixture
def run(tmp_path) -> Path:
    small = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)
    model = tiny_model().add_knowledge("mnist/4", small, generator=generator(0))
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def data(tmp_path, mnist) -> Path:
    folder = tmp_path / "data"
    for split, first in (("train", 0), ("test", 10)):
        for digit in (3, 4):
            (folder / split / str(digit)).mkdir(parents=True)
            for number, pixels in enumerate(mnist.pixels[mnist.labels == digit][first:][:10]):
                (folder / split / str(digit) / f"{number}.png").write_bytes(encode_png(pixels))
    return folder


def measure(script, run, data, *options):
    return CliRunner().invoke(
        script.digits,
        [str(run), "--data", str(data), "--samples", "3", "--device", "cpu", *options],
    )


def test_it_reports_everything_and_twice_the_same(script, run, data):
    first = measure(script, run, data, "--json")
    assert first.exit_code == 0, first.output
    report = json.loads(first.stdout)
    assert [entry["temperature"] for entry in report["samples"]] == [0.7, 1.0]
    assert [entry["path"] for entry in report["information"]] == ["mnist", "mnist/3", "mnist/4"]
    assert "trained_on_samples" in report["samples"][1]
    assert {"classifier", "discriminators", "likelihoods", "seed", "device"} <= report.keys()
    written = {path.name for path in (run / "digits").iterdir()}
    assert {"digits.json", "digits.md", "mnist-0.7.png", "mnist-1.png"} <= written
    again = json.loads(measure(script, run, data, "--json").stdout)
    report.pop("seconds")
    again.pop("seconds")
    assert again == report


def test_what_is_done_is_kept_if_the_rest_fails(script, run, data, monkeypatch):
    def fails(*_, **__):
        raise script.UsageError("no samples today")

    monkeypatch.setattr(script, "sampled", fails)
    result = measure(script, run, data)
    assert result.exit_code == 2
    assert "no samples today" in result.stderr
    kept = json.loads((run / "digits" / "digits.json").read_text())
    assert "discriminators" in kept
    assert "samples" not in kept


def test_a_label_that_the_model_does_not_know_is_named(script, run, data, mnist):
    for split in ("train", "test"):
        (data / split / "7").mkdir()
        (data / split / "7" / "0.png").write_bytes(encode_png(mnist.pixels[0]))
    result = measure(script, run, data)
    assert result.exit_code == 2
    assert "mnist/7" in result.stderr
