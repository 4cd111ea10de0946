from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tzk_core._version import __version__
from tzk_core.cli import main
from tzk_core.cli.main import COMMANDS, cli
from tzk_core.errors import ModelUnavailable, UsageError


@pytest.fixture
def raising():
    """Runs ``tzk fail``, a command that raises what it is given."""

    def run(error: BaseException, *arguments: str):
        group = main.Group("tzk")

        @group.command("fail")
        @click.option("--n", type=int)
        def fail(n) -> None:
            raise error

        return CliRunner().invoke(group, ["fail", *arguments])

    return run


def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_what_there_is():
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    for name in cli.list_commands(click.Context(cli)):
        assert f"  {name} " in result.stdout
        assert COMMANDS[name].summary[:20] in result.stdout


def test_version():
    result = CliRunner().invoke(cli, ["--version"])
    assert result.stdout == f"tzk, version {__version__}\n"


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Usage: ")


def test_help_imports_nothing_slow():
    slow = "torch", "datasets", "pandas", "huggingface_hub", "PIL", "httpx"
    code = (
        "import sys; from tzk_core.cli.main import cli; cli(['--help'], standalone_mode=False);"
        f"print('slow:', [m for m in {slow} if m in sys.modules])"
    )
    result = _python(code)
    assert result.stdout.endswith("slow: []\n"), result.stderr


def test_an_unknown_command():
    result = CliRunner().invoke(cli, ["tarin"])
    assert result.exit_code == 2
    assert "tarin" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("the key 'sise' is not known"), 2, "the key 'sise' is not known"),
        (ModelUnavailable("runs/a: no weights"), 1, "runs/a: no weights"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (PermissionError(13, "Permission denied", "out"), 1, "out: Permission denied"),
        (ModuleNotFoundError("", name="datasets.arrow"), 1, "pip install '.[train]' in the clone"),
        (ModuleNotFoundError("", name="ts"), 1, "pip install '.[serve]' in the clone"),
        (KeyError("x"), 1, "KeyError: 'x'"),
    ],
)
def test_errors_are_one_sentence(raising, error, code, sentence):
    result = raising(error)
    assert result.exit_code == code
    assert not result.stdout
    assert result.stderr.startswith("Error: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_debugging_shows_the_error(raising, monkeypatch):
    monkeypatch.setenv("TZK_DEBUG", "1")
    error = UsageError("wrong")
    assert raising(error).exception is error


def test_a_wrong_option(raising):
    result = raising(KeyError(), "--n", "many")
    assert result.exit_code == 2
    assert "'many' is not a valid integer" in result.stderr


def test_a_process_shows_no_traceback():
    code = """
import click
from tzk_core.cli.main import cli
from tzk_core.errors import UsageError
@cli.command('fail')
def fail():
    raise UsageError('wrong')
cli(['fail'])
"""
    result = _python(code)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "Error: wrong\n")
    assert "Traceback" in _python(code, TZK_DEBUG="1").stderr
