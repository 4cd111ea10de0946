"""benchmarks/fitting.py's `cost` on a tiny t-flow, and that benchmarks/training.py shows it."""

from __future__ import annotations

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table
from scripts import script_module

from tzk_core.training.latents import LATENTS


def test_a_kind_from_nothing_and_added(tmp_path, monkeypatch):
    fitting = script_module("fitting")
    monkeypatch.setattr(fitting, "FLOW", {"levels": 3, "steps": 1, "width": 4})
    monkeypatch.setattr(fitting, "DRAWS", 2)
    there = []
    fit = fitting._fit

    def watched(folder, *rest):
        there.append(len(list((folder / LATENTS).glob("[!.]*"))))  # without the lock
        return fit(folder, *rest)

    monkeypatch.setattr(fitting, "_fit", watched)
    command = ["--out", str(tmp_path), "--scale", "tiny", "--part", "cost", "--flow-steps", "7"]
    result = CliRunner().invoke(fitting.fitting, command)
    assert result.exit_code == 0, result.output
    cost = json.loads((tmp_path / "fitting.json").read_text())["cost"]
    assert cost["flow"]["steps"] == 7
    assert cost["images"]["of_the_kind"] == pytest.approx(0.5, abs=0.02)
    assert cost["added"]["steps"] >= cost["nothing"]["steps"] >= 10
    assert cost["long"]["steps"] == 10 * cost["added"]["steps"]
    # Sources whose latent states are there already: before the three short fits that tell what a
    # step costs, then from nothing, added to the other source's, long.
    assert there == [0, 2, 2, 0, 1, 2]
    assert {"gap_bits_per_dim", "gap_standard_error"} <= cost["added"].keys()
    assert "added to a run with" in (tmp_path / "fitting.md").read_text()

    table = Table("what", "told")
    for row in script_module("training")._cost(cost):
        table.add_row(*row)
    shown = io.StringIO()
    Console(file=shown, width=200).print(table)
    assert "7 steps" in shown.getvalue()
    for title in fitting.FITS.values():
        assert f"a kind, {title}" in shown.getvalue()
    assert shown.getvalue().count("bits/dim to the long fit") == 2
