"""Two experiments from end to end, at sizes that take seconds; taken, refused, and gone on with."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from reproduction.tiny_experiment import DATA, GIVEN, STAND_INS, TINY, changes
from training.command import environment

from tzk_core.errors import UsageError
from tzk_core.model import TzK
from tzk_core.reproduction import PaperData, Settings, reproduce

WEIGHTS = "model.safetensors"

pytestmark = pytest.mark.slow


def run(name: str, out, *more: str, **options) -> dict:
    options = {"data": DATA, "settings": TINY, "device": "cpu", "quiet": True} | options
    return reproduce(name, out=out, overrides=[*changes(name), *more], **options)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So that sums are added up in the same order here and in a process of its own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory):
    """The folder and the report of the tiny hierarchy."""
    out = tmp_path_factory.mktemp("hierarchy")
    return out, run("hierarchy", out)


def rows(report: dict) -> list[dict]:
    return [row for part in report["parts"].values() for row in part["rows"]]


def test_hierarchy(hierarchy):
    out, report = hierarchy
    model = TzK.from_pretrained(out / "runs" / "hierarchy-small")
    assert model.paths() == ["mnist", *(f"mnist/{digit}" for digit in range(10))]
    assert list(report["parts"]) == ["flow", "likelihoods", "discriminators", "samples"]
    assert json.loads((out / "hierarchy.json").read_text()) == report
    text = (out / "hierarchy.md").read_text()
    for part in report["parts"].values():
        for picture in part["pictures"]:
            assert (out / picture["file"]).read_bytes().startswith(b"\x89PNG")
            assert picture["file"] in text
    # The paper's estimator and the bounds side by side, on both D.
    found = {row["estimator"]: row for row in rows(report) if row["what"] == "p(t|mnist) of mnist"}
    assert set(found) == {"reconstruction", "importance, N = 2", "importance, N = 16"}
    for row in found.values():
        assert row["paper"] == "1.17"
        assert "(D = 192)" in row["ours"]
        assert "(native D = 64)" in row["native"]
        on_d, native = (figure["mean"] for figure in row["figures"].values())
        assert native == pytest.approx(3 * on_d)
    assert "stand-ins for CIFAR-10, SVHN, without Omniglot" in found["reconstruction"]["data"]
    assert found["reconstruction"]["verdict"]["why"].startswith("stand-ins for CIFAR-10, Omniglot")
    assert all(row["verdict"]["word"] in text for row in rows(report))
    # A model that has learned nothing is not said to have reached the paper's.
    accuracy = next(row for row in rows(report) if row["paper"] == "0.87")
    assert accuracy["figures"]["share"]["mean"] < 0.6
    assert accuracy["verdict"]["word"] == "not comparable"
    assert report["runs"]["hierarchy"]["smaller"]
    # Nothing tells where on this machine it was made.
    assert str(out) not in text


def test_specialise_cifar_freezes_the_t_flow(tmp_path):
    report = run("specialise-cifar", tmp_path)
    flow = TzK.from_pretrained(tmp_path / "runs" / "specialise-cifar-flow-small")
    both = TzK.from_pretrained(tmp_path / "runs" / "specialise-cifar-small")
    assert not flow.paths()
    assert both.paths() == ["cifar10", "mnist"]
    before, after = flow.flow.state_dict(), both.flow.state_dict()
    assert all(before[key].equal(after[key]) for key in before)
    # p(t) of the same test images is that of the t-flow alone, whatever was added since.
    priors = [row for row in rows(report) if row["estimator"] == "prior"]
    assert [row["paper"] for row in priors] == ["3.71", "–", "–"]
    claims = [row for row in rows(report) if row["what"].startswith("p(t|mnist) better")]
    assert [row["estimator"] for row in claims] == ["reconstruction", "importance, N = 16"]
    assert not (tmp_path / "runs" / "specialise-cifar-small" / "latents").exists()


def test_what_is_there_is_taken_and_what_is_other_is_refused(hierarchy, monkeypatch):
    out, report = hierarchy
    weights = out / "runs" / "hierarchy-small" / WEIGHTS
    written = weights.stat().st_mtime_ns
    monkeypatch.setattr("tzk_core.reproduction.runs.train", None)
    seconds = {name: part["seconds"] for name, part in report["parts"].items()}
    again = run("hierarchy", out)
    assert {name: part["seconds"] for name, part in again["parts"].items()} == seconds
    assert again == report
    # Measured anew of other numbers of images, on the same run.
    fewer = Settings(**(vars(TINY) | {"prior_images": 5}))
    other = run("hierarchy", out, settings=fewer)
    [row] = other["parts"]["flow"]["rows"]
    assert row["figures"]["bits/dim on D = 192"]["count"] == 5
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="holds a run by another recipe"):
        run("hierarchy", out, seed=5)
    with pytest.raises(UsageError, match="holds results of scale small"):
        run("hierarchy", out, scale="full")
    run("hierarchy", out)  # as it was, for the other tests


def test_killed_and_gone_on_with(hierarchy, tmp_path):
    whole, _ = hierarchy
    out = tmp_path / "out"
    options = [f"--data={text}" for text in GIVEN] + [f"--stand-in={text}" for text in STAND_INS]
    options += [f"--set={text}" for text in changes("hierarchy")]
    command = [sys.executable, "-m", "tzk_core.cli.main", "reproduce", "hierarchy", *options]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu"],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    folder = out / "runs" / "hierarchy-small"
    deadline = time.monotonic() + 300
    # Within the second of its stages, which a checkpoint says.
    while not list(folder.glob("checkpoints/1-*/state.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    assert not (folder / WEIGHTS).exists()
    with pytest.raises(UsageError, match="holds an interrupted run: go on with --resume"):
        run("hierarchy", out)
    report = run("hierarchy", out, resume=True)
    assert list(report["parts"]) == ["flow", "likelihoods", "discriminators", "samples"]
    # The same run as one that was left alone.
    mine, theirs = (place / "runs" / "hierarchy-small" / WEIGHTS for place in (out, whole))
    assert mine.read_bytes() == theirs.read_bytes()


def test_kinds_that_are_there_are_not_fitted_again(tmp_path, monkeypatch):
    """An experiment that was stopped between two kinds keeps the first."""
    from tzk_core.reproduction import runs

    real = runs.fit_knowledge

    def first_only(folder, **options):
        real(folder, only=["cifar10"], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "fit_knowledge", first_only)
    with pytest.raises(KeyboardInterrupt):
        run("specialise-cifar", tmp_path)
    monkeypatch.setattr(runs, "fit_knowledge", real)
    with pytest.raises(UsageError, match="go on with --resume"):
        run("specialise-cifar", tmp_path)
    report = json.loads((tmp_path / "specialise-cifar.json").read_text())
    # What was known before is written already.
    assert list(report["parts"]) == ["flow"]
    kind = tmp_path / "runs" / "specialise-cifar-small" / "knowledge" / "cifar10"
    written = {path: path.stat().st_mtime_ns for path in kind.parent.glob("cifar10*")}
    assert written
    report = run("specialise-cifar", tmp_path, resume=True)
    assert list(report["parts"]) == ["flow", "cifar10", "mnist"]
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_by_two_processes(tmp_path):
    run("baselines", tmp_path, only=["baseline-mnist"], processes=2)
    folder = tmp_path / "runs" / "baseline-mnist-small"
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    assert "2 processes" in (tmp_path / "baselines.md").read_text()


def test_only_one_run(tmp_path):
    options = {"data": PaperData.parsed(GIVEN)}  # no CIFAR-10 is asked for
    report = run("baselines", tmp_path, only=["baseline-mnist"], **options)
    assert list(report["parts"]) == ["mnist"]
    assert list(report["runs"]) == ["baseline-mnist"]
    with pytest.raises(UsageError, match="has no run 'baseline'; it has baseline-cifar10, "):
        run("baselines", tmp_path, only=["baseline"], **options)


def test_cost(tmp_path):
    # As many steps as take longer than what setting up differs by.
    report = run("cost", tmp_path, settings=Settings(**(vars(TINY) | {"timed_steps": 12})))
    steps, parallel = report["parts"]["steps"]["rows"], report["parts"]["parallel"]["rows"]
    assert [row["paper"] for row in steps] == ["roughly half the time"] * 3 + ["marginally faster"]
    ratio = steps[0]["figures"]["ratio"]["mean"]
    each = {
        name: figure["mean"]
        for name, figure in steps[0]["figures"].items()
        if name not in ("difference", "ratio")
    }
    assert min(each.values()) > 0
    assert steps[0]["figures"]["difference"]["mean"] == pytest.approx(0.6 - ratio)
    assert re.search(r"of the (time|baseline's time)", parallel[0]["ours"])
    assert not report["runs"]
