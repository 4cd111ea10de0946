"""What benchmarks/regression.py concludes of figures whose truth is known, and a run of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scripts import script_module

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "regression.py"
TINY = ["--levels", "2", "--steps", "1", "--width", "4", "--batch", "4", "--rounds", "2"]


@pytest.fixture(scope="module")
def script():
    return script_module("regression")


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout


def pairs(ratio: float, rounds: int = 15, noise: float = 0.02, seed: int = 0):
    """Seconds of two trees on a machine that becomes ever slower."""
    random = np.random.default_rng(seed)
    slowing = np.linspace(1, 3, rounds)
    old, new = (slowing * (1 + noise * random.standard_normal(rounds)) for _ in range(2))
    return old.tolist(), (ratio * new).tolist()


@pytest.mark.parametrize(
    ("ratio", "slower"), [(0.7, False), (1.0, False), (1.09, False), (1.2, True), (2.0, True)]
)
def test_a_path_is_slower_where_its_whole_interval_is(script, ratio, slower):
    found = script.summary(*pairs(ratio), tolerance=0.1)
    low, high = found["interval"]
    assert low <= found["ratio"] <= high
    assert found["ratio"] == pytest.approx(ratio, rel=0.03)
    assert found["slower"] is slower


def test_noise_alone_is_no_regression(script):
    old, new = pairs(1.12, noise=0.3)
    assert not script.summary(old, new, tolerance=0.1)["slower"]


def test_intervals_hold_the_truth_as_often_as_they_say(script):
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = script.interval(random.normal(1, 0.1, 15))
        held += low <= 1 <= high
    assert 0.88 <= held / 200 <= 0.99


@pytest.fixture
def two_commits(script, tmp_path, monkeypatch):
    """The script's repository is one of two commits; that of the checkout may not be there."""

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    for name in ("user.name", "user.email"):
        git("config", name, "nobody")
    for message in ("first", "second"):
        git("commit", "--allow-empty", "--no-gpg-sign", "--message", message)
    monkeypatch.setattr(script, "ROOT", tmp_path)


@pytest.mark.parametrize("base", ["no-such-commit", "HEAD~2"])
def test_a_commit_that_is_none(script, two_commits, base):
    result = CliRunner().invoke(script.regression, ["--base", base])
    assert result.exit_code == 2
    assert f"no {base} here" in result.output


def in_checkout(test):
    return pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git checkout")(test)


@in_checkout
@pytest.mark.slow
def test_the_working_tree_beside_its_own_commit(tmp_path):
    command = [sys.executable, str(SCRIPT), *TINY, "--base", "HEAD", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    # A tolerance that nothing of two rounds can exceed: what is tested is that all of it runs.
    done = subprocess.run(
        [*command, "--tolerance", "100"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["paths"]) == ["nll", "sample", "train"]
    for one in report["paths"].values():
        assert len(one["seconds"]["base"]) == len(one["seconds"]["new"]) == 2
        assert one["base_ms"] > 0
    assert report["missing"] == {}
    # Nothing is left behind, neither files (but torch's own) nor git's note of a worktree.
    assert not list(tmp_path.glob("tzk-*"))
    assert str(tmp_path) not in git("worktree", "list")


@in_checkout
@pytest.mark.slow
def test_a_tree_that_fails_is_told_and_leaves_nothing(script, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(script.tempfile, "tempdir", None)
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('this tree is broken')\n")
    monkeypatch.setattr(script, "WORKER", broken)
    result = CliRunner().invoke(script.regression, [*TINY, "--base", "HEAD"])
    assert result.exit_code == 3
    assert "the tree 'base' failed:\nthis tree is broken" in result.output
    assert not list(tmp_path.glob("tzk-*"))
    assert str(tmp_path) not in git("worktree", "list")
