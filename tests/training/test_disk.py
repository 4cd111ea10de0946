"""A disk that is full, or a folder that cannot be written: one sentence, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time

import pytest
from training.command import environment, start, written

from tzk_core.errors import WorkFailed
from tzk_core.training.checkpoint import latest_checkpoint, load_checkpoint
from tzk_core.training.loop import Stage
from tzk_core.training.run import train

# A namespace of its own, in which a small file system can be mounted without anyone noticing.
PRIVATE = ("unshare", "--mount")
WEIGHTS = "model.safetensors"


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*PRIVATE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def at_step(monkeypatch, number: int, act) -> None:
    plain = Stage._step

    def step(self, this):
        if (self.index, this) == (0, number):
            act()
        return plain(self, this)

    monkeypatch.setattr(Stage, "_step", step)


def test_a_file_that_may_not_grow(tmp_path, monkeypatch, tiny_recipe):
    """The system refuses to write more than 4 KB to any file (as a quota does)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "run"
    at_step(monkeypatch, 7, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard)))
    try:
        with pytest.raises(WorkFailed) as caught:
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = out / "checkpoints" / "0-000005"
    assert "cannot be written: File too large" in caught.value.detail
    assert "\n" not in caught.value.detail
    assert latest_checkpoint(out / "checkpoints") == kept
    assert load_checkpoint(kept).step == 5
    assert not (out / "checkpoints" / "0-000010").exists()


# Root may write anywhere, unless it gives that right up, as this does for what it starts.
HUMBLE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def test_a_folder_that_may_not_be_written(tmp_path, tiny_recipe):
    recipe = tiny_recipe("stages=[{train: flow, steps: 100000, batch: 8, checkpoint_every: 10}]")
    out = tmp_path / "run"
    places = out / "checkpoints"
    process = start(written(tmp_path, recipe), out, before=HUMBLE)
    deadline = time.monotonic() + 120
    while not latest_checkpoint(places) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    places.chmod(0o555)
    _, stderr = process.communicate(timeout=60)
    places.chmod(0o755)
    assert process.returncode == 1
    error = stderr.splitlines()[-1]
    assert "cannot be written: Permission denied" in error
    assert "--resume" in error
    assert "Traceback" not in stderr
    assert load_checkpoint(latest_checkpoint(places)).step >= 10


SCRIPT = """
import json, subprocess, sys
from pathlib import Path
disk, *command = sys.argv[1:]

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "none", disk, *options], check=True)

def run(*options):
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    places = sorted(p.name for p in Path(disk, "run/checkpoints").glob("*"))
    return {"code": done.returncode, "said": done.stderr, "places": places}

mount("-o", "size=SIZE")
told = [run()]
mount("-o", "remount,ro")
told.append(run("--resume"))
mount("-o", "remount,rw,size=100m")
told.append(run("--resume"))
told[-1]["weights"] = Path(disk, "run/model.safetensors").read_bytes().hex()
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="needs the right to mount")
@pytest.mark.usefixtures("one_thread")
def test_a_disk_that_is_full_then_read_only_then_large_enough(tmp_path, tiny_recipe):
    """A real file system of its own for a real process."""
    recipe = tiny_recipe("watch.keep_last=100", "stages.0.checkpoint_every=1")
    train(recipe, out=tmp_path / "whole", device="cpu", quiet=True)
    one = sum(p.stat().st_size for p in (tmp_path / "whole/checkpoints/0-000001").iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "tzk_core.cli.main", "train"]
    command += [str(written(tmp_path, recipe)), "--out", str(disk / "run"), "--device", "cpu"]
    script = SCRIPT.replace("SIZE", str(6 * one))
    done = subprocess.run(
        [*PRIVATE, sys.executable, "-c", script, str(disk), *command],
        env=environment(TZK_CACHE=str(tmp_path / "cache")),
        text=True,
        capture_output=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    full, read_only, large = json.loads(done.stdout)
    error = full["said"].splitlines()[-1]
    assert full["code"] == 1
    assert error.startswith("Error: ")
    assert "No space left on device" in error
    assert "Traceback" not in full["said"]
    assert full["places"][0] == "0-000001"
    assert read_only["code"] == 1
    assert "Read-only file system" in read_only["said"].splitlines()[-1]
    assert "Traceback" not in read_only["said"]
    assert set(full["places"]) - {"best-0"} <= set(read_only["places"])
    assert large["code"] == 0, large["said"]
    assert bytes.fromhex(large["weights"]) == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_what_was_cut_off_is_swept_up(tmp_path, monkeypatch, tiny_recipe):
    """And the newest checkpoint that is whole counts where a newer one is not."""
    out = tmp_path / "run"

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 8, stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe("stages.0.checkpoint_every=4"), out=out, device="cpu", quiet=True)
    places = out / "checkpoints"
    assert latest_checkpoint(places).name == "0-000008"
    (places / "0-000008" / "optimizer.safetensors").write_bytes(b"cut")
    (places / ".0-000008-x1").mkdir()
    (places / ".best-0-x1").mkdir()
    (out / ".metrics.jsonl.123").touch()
    (places / "0-000002").mkdir()
    (out / "metrics.jsonl").open("a").write('{"stage": 0, "ste')
    train(
        tiny_recipe("stages.0.checkpoint_every=4"), out=out, resume=True, device="cpu", quiet=True
    )
    assert not list(out.rglob(".*"))
    assert not (places / "0-000002").exists()
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in found if r["stage"] == 0 and "loss" in r] == [0, 9]
    train(tiny_recipe("stages.0.checkpoint_every=4"), out=tmp_path / "w", device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "w" / WEIGHTS).read_bytes()
