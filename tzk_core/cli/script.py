"""A command of its own, such as a benchmark, that shows errors as the command ``tzk`` does."""

from __future__ import annotations

from typing import Any

import click

from tzk_core.cli.main import Failure
from tzk_core.errors import TzkError

__all__ = ["Script"]


class Script(click.Command):
    """Errors of tzk as one sentence and their exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TzkError as error:
            raise Failure(error.detail, error.exit_code) from error
