"""What a run leaves to be looked at."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from tzk_core._version import __version__
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.model import TzK
from tzk_core.training.checkpoint import best_of
from tzk_core.training.facts import git_state
from tzk_core.training.loop import Stage
from tzk_core.training.recipe import parse_recipe
from tzk_core.training.run import train
from tzk_core.training.watching import Metrics

OFTEN = (
    "watch={tensorboard: true, samples_every: 4, samples: 4, log_every: 2, keep_last: 3}",
    "stages.0.measure_every=2",
    "stages.0.checkpoint_every=2",
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_recipe) -> Path:
    """A run that is watched often, and that was interrupted on the way."""
    out = tmp_path_factory.mktemp("runs") / "watched"
    plain = Stage._step

    def stop(self, number):
        if (self.index, number) == (0, 7):
            raise KeyboardInterrupt
        return plain(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(*OFTEN), out=out, device="cpu", quiet=True)
    before = json.loads((out / "run.json").read_text())
    assert before["seed"] == 3
    assert "figures" not in before
    train(tiny_recipe(*OFTEN), out=out, resume=True, device="cpu", quiet=True)
    return out


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_there_once_and_in_order(watched):
    found = [(row["stage"], row["step"]) for row in rows(watched) if "loss" in row]
    assert found == [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8), (0, 9), (1, 0), (1, 2), (1, 4)]


def test_tensorboard(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(watched / "tensorboard"))
    seen.Reload()
    tags = seen.Tags()
    assert {"t-flow/loss", "t-flow/held_out_bits_per_dim", "knowledge/loss"} <= set(tags["scalars"])
    told = {e.step: e.value for e in seen.Scalars("t-flow/loss")}
    for row in rows(watched):
        if "loss" in row and row["stage"] == 0:
            assert told[row["step"]] == pytest.approx(row["loss"], abs=1e-5)
    # Steps are counted over stages: the first has 10.
    assert [e.step for e in seen.Scalars("knowledge/loss")] == [10, 12, 14]
    # What was written of steps that were done again after the interruption is left out.
    assert [e.step for e in seen.Scalars("t-flow/loss")] == [0, 2, 4, 6, 8, 9]
    assert {e.step for e in seen.Images("samples/prior")} == {3, 7, 9}
    assert (seen.Images("samples/prior")[0].width, seen.Images("samples/prior")[0].height) > (8, 8)
    assert "samples/mnist" in tags["images"]
    assert {"mnist/encoder log σ", "fashion/decoder log σ"} <= set(tags["histograms"])


def test_a_run_killed_before_its_first_checkpoint_shows_each_step_once(tmp_path, tiny_recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, plain = tmp_path / "run", Stage._step
    recipe = tiny_recipe("watch={tensorboard: true, samples_every: 0, log_every: 1}")

    def stop(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return plain(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out, device="cpu", quiet=True)
    assert not (out / "checkpoints").exists()
    train(recipe, out=out, resume=True, device="cpu", quiet=True)
    seen = EventAccumulator(str(out / "tensorboard"))
    seen.Reload()
    assert [e.step for e in seen.Scalars("t-flow/loss")] == list(range(10))


def test_how_much_codes_tell_is_measured(watched):
    """Eq. 12's I(c; t): finite, and at most log of the number of images it is taken over."""
    last = [row for row in rows(watched) if "mnist/information" in row][-1]
    assert (last["stage"], last["step"]) == (1, 4)
    for name in ("mnist", "fashion"):
        assert -0.5 < last[f"{name}/information"] <= math.log(256)


def test_watching_changes_nothing(watched, tmp_path, tiny_recipe):
    train(tiny_recipe(), out=tmp_path / "plain", device="cpu", quiet=True)
    name = "model.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (watched / name).read_bytes()
    assert not (tmp_path / "plain" / "tensorboard").exists()


def test_the_last_checkpoints_and_the_best_are_kept(watched):
    places = {path.name for path in (watched / "checkpoints").iterdir()}
    assert places == {"0-000010", "1-000004", "1-000005", "best-0", "best-1"}
    measured = [
        (row["held_out_bits_per_dim"], row["step"] + 1)
        for row in rows(watched)
        if "held_out_bits_per_dim" in row
    ]
    assert [step for _, step in measured] == [2, 4, 6, 8, 10]
    best = best_of(watched / "checkpoints")
    assert (best[0]["held_out"], best[0]["step"]) == pytest.approx(min(measured), abs=1e-6)
    assert json.loads((watched / "run.json").read_text())["best"] == best
    model = TzK.from_pretrained(watched / "checkpoints" / "best-0")
    assert model.paths() == []
    assert TzK.from_pretrained(watched / "checkpoints" / "best-1").paths()


def test_the_run_says_what_it_was_made_of(watched):
    facts = json.loads((watched / "run.json").read_text())
    assert facts["tzk"] == __version__
    assert facts["torch"] == torch.__version__
    assert facts["packages"]["numpy"]
    assert facts["git"] == git_state(Path(__file__))
    assert {len(value) for value in facts["fingerprints"].values()} == {64}
    assert facts["images"]["training"] > 0
    assert parse_recipe(yaml.safe_load((watched / "recipe.yaml").read_text())).seed == facts["seed"]


def test_git_state(tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    assert git_state(file) is None

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init")
    git("add", "a")
    assert git_state(file) is None  # there is no commit yet
    git("commit", "-m", "a")
    state = git_state(file)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    file.write_text("2")
    assert git_state(file) == state | {"dirty": True}
    # What is installed below a clone is not part of it.
    installed = tmp_path / ".venv" / "lib" / "facts.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    assert git_state(installed) is None


def test_images_that_have_changed_are_refused(tmp_path, values, tiny_recipe, monkeypatch):
    own = values()["data"]["sources"][0]["source"]
    shutil.copytree(own, tmp_path / "digits")
    recipe = tiny_recipe(f"data.sources.0.source={tmp_path / 'digits'}")

    def stop(self, number):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    next((tmp_path / "digits" / "0").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"digits: not the images that the run .* began with"):
        train(recipe, out=tmp_path / "run", resume=True, device="cpu", quiet=True)


def test_metrics(tmp_path):
    metrics = Metrics(tmp_path / "m.jsonl")
    metrics.rewind(0, 0)
    assert not metrics.path.exists()
    for stage, step in ((0, 0), (0, 5), (0, 10), (1, 0)):
        metrics.write({"stage": stage, "step": step, "loss": float("nan")})
    metrics.rewind(0, 10)
    assert metrics.path.read_text().splitlines() == [
        '{"stage": 0, "step": 0, "loss": null}',
        '{"stage": 0, "step": 5, "loss": null}',
    ]
    with pytest.raises(WorkFailed, match=r"none.m\.jsonl cannot be written: No such file"):
        Metrics(tmp_path / "none" / "m.jsonl").write({})
