"""Losses, gradients and weights that are not finite: left out, counted, never in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tzk_core.errors import WorkFailed
from tzk_core.training import steps
from tzk_core.training.checkpoint import latest_checkpoint, load_checkpoint
from tzk_core.training.loop import Stage
from tzk_core.training.run import train

FLOW_ONLY = "stages=[{train: flow, steps: 10, batch: 16, checkpoint_every: 5, ema: 0.5}]"


def spoil(monkeypatch, spoiled) -> None:
    """The loss is NaN in the steps for which ``spoiled(step)``."""
    plain = steps.objective

    def objective(*args, step, **kwargs):
        terms = plain(*args, step=step, **kwargs)
        if spoiled(step):
            terms.total = terms.total * float("nan")
        return terms

    monkeypatch.setattr(steps, "objective", objective)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_all_finite(out: Path) -> None:
    """In every checkpoint that there is: weights, averages, optimiser."""
    places = list((out / "checkpoints").glob("0-*"))
    assert places
    for place in places:
        kept = load_checkpoint(place)
        tensors = [*kept.model.parameters(), *kept.averaged]
        tensors += [v for state in kept.optimizer["state"].values() for v in state.values()]
        assert all(bool(tensor.isfinite().all()) for tensor in tensors), place


def test_bad_steps_are_left_out_and_counted(tmp_path, monkeypatch, tiny_recipe):
    with monkeypatch.context() as patch:
        spoil(patch, lambda step: step in (3, 7, 8))
        model = train(tiny_recipe(FLOW_ONLY), out=tmp_path / "run", device="cpu", quiet=True)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    found = rows(tmp_path / "run")
    left_out = [(row["step"], row["bad_steps"]) for row in found if row.get("left_out")]
    assert left_out == [(3, 1), (7, 2), (8, 3)]
    assert [row for row in found if "loss" in row][-1]["bad_steps"] == 3
    assert_all_finite(tmp_path / "run")


def test_a_bad_step_changes_nothing(tmp_path, monkeypatch, tiny_recipe):
    seen = {}
    plain = Stage._step

    def step(self, number):
        before = [p.detach().clone() for p in self.parameters]
        done = plain(self, number)
        same = all(torch.equal(a, b) for a, b in zip(before, self.parameters, strict=True))
        seen[number] = same
        return done

    monkeypatch.setattr(Stage, "_step", step)
    spoil(monkeypatch, lambda step: step in (3, 9))
    train(tiny_recipe(FLOW_ONLY), out=tmp_path / "run", device="cpu", quiet=True)
    assert [number for number, same in seen.items() if same] == [3, 9]


def test_a_gradient_that_is_not_finite(tmp_path, monkeypatch, tiny_recipe):
    """With a loss that is."""
    plain = steps.Steps.gradients

    def gradients(self, step):
        outcome = plain(self, step)
        if step == 4:
            next(p for p in self.model.parameters() if p.grad is not None).grad[0] = float("inf")
        return outcome

    monkeypatch.setattr(steps.Steps, "gradients", gradients)
    train(tiny_recipe(FLOW_ONLY), out=tmp_path / "run", device="cpu", quiet=True)
    assert [row["step"] for row in rows(tmp_path / "run") if row.get("left_out")] == [4]
    assert_all_finite(tmp_path / "run")


def test_many_in_a_row_stop_the_run_and_the_last_good_checkpoint_stays(
    tmp_path, monkeypatch, tiny_recipe
):
    spoil(monkeypatch, lambda step: step >= 6)
    recipe = tiny_recipe(FLOW_ONLY, "stages.0.bad_steps=3", "stages.0.checkpoint_every=1")
    with pytest.raises(WorkFailed, match=r"not finite in 3 steps in a row, .* step 8; try"):
        train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert_all_finite(tmp_path / "run")


def test_bad_steps_that_are_not_in_a_row_do_not_add_up(tmp_path, monkeypatch, tiny_recipe):
    spoil(monkeypatch, lambda step: step % 2 == 1)
    train(
        tiny_recipe(FLOW_ONLY, "stages.0.bad_steps=2"),
        out=tmp_path / "run",
        device="cpu",
        quiet=True,
    )


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_weights_that_a_good_step_has_spoiled_are_in_no_checkpoint(
    tmp_path, monkeypatch, tiny_recipe, value
):
    """Step 6 has a finite loss and gradient, and leaves weights with which nothing is finite."""
    plain = Stage._step

    def step(self, number):
        done = plain(self, number)
        if number == 6:
            with torch.no_grad():
                self.parameters[-1].fill_(value)
        return done

    monkeypatch.setattr(Stage, "_step", step)
    recipe = tiny_recipe(FLOW_ONLY, "stages.0.bad_steps=3", "stages.0.checkpoint_every=1")
    with pytest.raises(WorkFailed, match="not finite"):
        train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    kept = load_checkpoint(latest_checkpoint(tmp_path / "run" / "checkpoints"))
    assert kept.step == 6
    assert all(bool(p.isfinite().all()) for p in kept.model.parameters())
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_count_goes_on_after_an_interruption(tmp_path, monkeypatch, tiny_recipe):
    """Two bad steps before the checkpoint and one after it are three in a row."""
    spoil(monkeypatch, lambda step: step in (3, 4, 5))
    recipe = tiny_recipe(FLOW_ONLY, "stages.0.bad_steps=3")
    plain = Stage._step

    def stop_at_5(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return plain(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_step", stop_at_5)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert load_checkpoint(latest_checkpoint(tmp_path / "run" / "checkpoints")).bad_in_a_row == 2
    with pytest.raises(WorkFailed, match=r"in 3 steps in a row, the last being step 5"):
        train(recipe, out=tmp_path / "run", resume=True, device="cpu", quiet=True)
