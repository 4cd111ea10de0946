"""A run killed at any moment, resumed as often, ends with the bytes of one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from training.command import rows, start, written

from tzk_core.training.checkpoint import latest_checkpoint
from tzk_core.training.run import train

WEIGHTS = "model.safetensors"
KILLS = 3
# Checkpoints and measurements all the time, so that many kills fall into the writing of one; few
# steps of the t-flow, so that some fall into the stage of knowledge.
OFTEN = (
    "stages.0.steps=6",
    "stages.1.steps=20",
    "stages.0.checkpoint_every=1",
    "stages.1.checkpoint_every=1",
    "stages.0.measure_every=2",
    "watch.log_every=1",
    "watch.measure_images=8",
)


pytestmark = pytest.mark.usefixtures("one_thread")


def steps_done(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_killed_at_random_moments_and_resumed(tmp_path, tiny_recipe):
    recipe = tiny_recipe(*OFTEN)
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(recipe, out=whole, device="cpu", quiet=True)
    file, chance, survivors = written(tmp_path, recipe), random.Random(20261125), []
    for kill in range(KILLS):
        process = start(file, out, *(["--resume"] if kill else []))
        # So many rows further on, or before the first one, and then anywhere within a step.
        goal = steps_done(out) + chance.randrange(1, 11)
        deadline = time.monotonic() + 120
        while steps_done(out) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.kill()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, stderr
        survivors.append(latest_checkpoint(out / "checkpoints"))
    assert not (out / WEIGHTS).exists()
    assert len(set(survivors)) > 1, "the kills fell on one place"
    assert survivors[-1].name.startswith("1-"), "no kill fell into the stage of knowledge"
    process = start(file, out, "--resume")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stdout == f"{out}\n"
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    for name in ("best-0", "best-1"):
        mine, theirs = (run / "checkpoints" / name / WEIGHTS for run in (out, whole))
        assert mine.read_bytes() == theirs.read_bytes()
    # Every step is told once, and nothing half-written stays.
    assert rows(out) == rows(whole)
    assert not list(out.rglob(".*"))
