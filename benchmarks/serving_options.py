"""What the serving benchmarks' command lines have in common."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["Lists"]


class Lists(click.ParamType):
    """Values with commas between them."""

    name = "list"

    def __init__(self, of: click.ParamType) -> None:
        self.of = of

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        if isinstance(value, (list, tuple)):
            return list(value)
        return [self.of.convert(one.strip(), param, ctx) for one in value.split(",")]
