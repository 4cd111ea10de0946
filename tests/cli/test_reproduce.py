from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from reproduction.tiny_experiment import GIVEN, TINY, changes

from tzk_core.cli.main import cli
from tzk_core.reproduction import EXPERIMENTS, SCALES


def reproduce(*arguments: str):
    return CliRunner().invoke(cli, ["reproduce", *map(str, arguments)])


def test_list():
    result = reproduce("--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hierachy"], "there is no experiment 'hierachy'; there are baselines, multi-data"),
        ([], "which experiment? There are baselines, multi-data"),
        (["hierarchy", "--scale", "large"], "'large' is not one of"),
        (["hierarchy", "--data", "mnits=x"], "no data set 'mnits'; there are cifar10, mnist"),
        (["baselines", "--data", "mnist=builtin/mnist"], "--data cifar10=FOLDER"),
        (["baselines", "--results", "x"], "--results is for --page"),
        (["cost", "--set", "nope:seed=1"], "no such recipe; there are baseline-cifar10"),
        (["baselines", "hierachy"], "there is no experiment 'hierachy'"),
        (["--page", "p.md", "--results", "."], "holds no results"),
    ],
)
def test_a_wrong_call(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = reproduce(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not result.stdout
    # Nothing is begun.
    assert not list(tmp_path.iterdir())


def test_the_page(tmp_path):
    result = reproduce("--page", tmp_path / "page.md")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'page.md'}\n"
    assert "Not run yet at scale small." in (tmp_path / "page.md").read_text()


@pytest.mark.slow
def test_an_experiment(tmp_path, monkeypatch):
    monkeypatch.setitem(SCALES, "small", TINY)
    monkeypatch.chdir(tmp_path)
    options = [f"--data={text}" for text in [*GIVEN, "cifar10=builtin/fashion_mnist"]]
    options += [f"--set={text}" for text in changes("baselines")]
    result = reproduce("baselines", *options, "--device", "cpu")
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs" / "paper-small"
    assert result.stdout.endswith("runs/paper-small/baselines.md\n")
    for shown in ("p(t) of cifar10", "3.54", "1.11", "not comparable"):
        assert shown in result.stdout
    report = json.loads((out / "baselines.json").read_text())
    assert report["scale"] == "small"
    assert list(report["parts"]) == ["cifar10", "mnist"]
    again = reproduce("baselines", *options, "--device", "cpu", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == report
    page = reproduce("--page", tmp_path / "page.md", "--results", out)
    assert page.exit_code == 0, page.output
    assert "1.11" in (tmp_path / "page.md").read_text()
