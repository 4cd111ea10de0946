"""Tables for the terminal and for Markdown, from the same rows of text."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.table import Table

__all__ = ["Sheet", "markdown", "number", "show"]

WIDTH = 160
"""Columns of output that is no terminal, whose width nobody knows: a row stays on one line."""


class Sheet(NamedTuple):
    """A table, all of it text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def show(sheets: list[Sheet]) -> None:
    """Prints them."""
    console = Console(width=None if Console().is_terminal else WIDTH)
    for sheet in sheets:
        table = Table(*sheet.columns, title=sheet.title)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def markdown(sheets: list[Sheet]) -> str:
    """As tables of Markdown below their titles."""
    blocks = []
    for sheet in sheets:
        lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
        told = [
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        ]
        blocks.append("\n".join([f"### {sheet.title}", "", *told, ""]))
    return "\n".join(blocks)


def number(value: float | None, digits: int = 1) -> str:
    """A dash where there is none.

    >>> number(2.345), number(None)
    ('2.3', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"
