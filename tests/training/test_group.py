"""Several processes, or parts worked on one after the other, do what one does with the batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training.command import environment, rows, start, written

from tzk_core.errors import UsageError
from tzk_core.model import TzK
from tzk_core.training.checkpoint import latest_checkpoint, load_checkpoint
from tzk_core.training.launch import launch
from tzk_core.training.run import train

# Batches that two do not divide evenly, and parts in which some kind does not occur.
BATCHES = ("stages.0.batch=9", "stages.1.batch=7", "watch.log_every=1")
# Losses are in bits/dim and logged with six digits after the point. Other figures are differences
# of hundreds of nats in float32.
LOSSES = ("loss", "bits_per_dim", "held_out_loss", "held_out_bits_per_dim")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_recipe) -> Path:
    """A run of one process whose batches are in one part."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    train(tiny_recipe(*BATCHES), out=out, device="cpu", quiet=True)
    return out


def assert_same_run(out: Path, alone: Path) -> None:
    """To rounding: every figure of every step, and every weight."""
    assert len(rows(alone)) == 17
    for mine, theirs in zip(rows(out), rows(alone), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-3)
        for name in set(LOSSES) & set(theirs):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-5)
    weights, others = (TzK.from_pretrained(run).state_dict() for run in (out, alone))
    for key, value in weights.items():
        # Where a gradient is nothing but rounding, Adam makes a step of the rate's size of it.
        assert torch.allclose(value.float(), others[key].float(), atol=2e-3, equal_nan=True), key


def test_two_processes_are_one(alone, tmp_path, tiny_recipe):
    out = tmp_path / "run"
    process = start(written(tmp_path, tiny_recipe(*BATCHES)), out, "--processes", "2")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stdout == f"{out}\n"
    assert stderr.count("is ready") == 1
    assert '"processes": 2' in (out / "run.json").read_text()
    assert_same_run(out, alone)


def test_accumulated_parts_are_one_batch(alone, tmp_path, tiny_recipe):
    recipe = tiny_recipe(*BATCHES, "stages.0.accumulate=4", "stages.1.accumulate=9")
    train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_accelerate_launch(alone, tmp_path, tiny_recipe):
    out, launcher = tmp_path / "run", Path(sys.executable).with_name("accelerate")
    options = ["launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    recipe = written(tmp_path, tiny_recipe(*BATCHES))
    command = [launcher, *options, "-m", "tzk_core.cli.main", "train", str(recipe)]
    done = subprocess.run(
        [*command, "--out", str(out), "--device", "cpu"],
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert '"processes": 2' in (out / "run.json").read_text()
    assert_same_run(out, alone)


LONG = "steps: 150, batch: 8, checkpoint_every: 10"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [
        f"[{{train: flow, {LONG}}}]",
        # Latent states are worked out in shares, again by the processes that go on.
        f"[{{train: flow, steps: 5, batch: 8}}, {{train: knowledge, {LONG}}}]",
    ],
    ids=["flow", "knowledge"],
)
def test_both_stop_after_the_same_step_and_go_on(tmp_path, tiny_recipe, stages):
    recipe = tiny_recipe(f"stages={stages}")
    file, out = written(tmp_path, recipe), tmp_path / "run"
    process = start(file, out, "--processes", "2")
    wait_for(out / "checkpoints" / f"{len(recipe.stages) - 1}-000020")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert stderr.count("interrupted after step") == 1
    assert "Traceback" not in stderr
    stopped = load_checkpoint(latest_checkpoint(out / "checkpoints")).step
    assert f"after step {stopped} of 150" in stderr
    process = start(file, out, "--processes", "2", "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    alone = tmp_path / "whole"
    process = start(file, alone, "--processes", "2")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    weights = [(run / "model.safetensors").read_bytes() for run in (out, alone)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_one_that_dies_ends_all_and_is_named(tmp_path, tiny_recipe):
    recipe = tiny_recipe("stages=[{train: flow, steps: 100000, batch: 8, checkpoint_every: 10}]")
    out = tmp_path / "run"
    process = start(written(tmp_path, recipe), out, "--processes", "2")
    wait_for(out / "checkpoints" / "0-000010")
    second = [pid for pid in children(process.pid) if b"RANK=1" in variables(pid)]
    os.kill(second[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1: it was ended by signal 9" in stderr
    assert "Traceback" not in stderr
    assert load_checkpoint(latest_checkpoint(out / "checkpoints")).step >= 10


@pytest.mark.slow
def test_none_goes_on_without_its_launcher(tmp_path, tiny_recipe):
    recipe = tiny_recipe("stages=[{train: flow, steps: 100000, batch: 8, checkpoint_every: 10}]")
    out = tmp_path / "run"
    process = start(written(tmp_path, recipe), out, "--processes", "2")
    wait_for(out / "checkpoints" / "0-000010")
    both = children(process.pid)
    assert len(both) == 2
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)


def test_a_launcher_within_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="no other launcher started"):
        launch(["train"], 2)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 90
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]


def variables(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
