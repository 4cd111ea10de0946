"""Tables on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .result import Table

if TYPE_CHECKING:
    from .store import Store

__all__ = ["console", "markdown_table", "print_table", "rich_table", "show"]


def console() -> Console:
    """Standard output; a file has no edge that tables must be cut to."""
    found = Console()
    return found if found.is_terminal else Console(width=160)


def rich_table(table: Table) -> RichTable:
    """A table for a terminal, without its title, which would be cut to the table's width."""
    # As `Text`, since what stands in brackets would be read as markup.
    shown = RichTable()
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def markdown_table(table: Table, level: int = 2) -> str:
    """A table below its title, a heading of that level, or bold for 0."""

    def line(cells: list[str]) -> str:
        # A bar would end the cell.
        return "| " + " | ".join(cell.replace("|", "∣") for cell in cells) + " |"

    rule = "|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|"
    head = f"{'#' * level} {table.title}\n" if level else f"**{table.title}**\n"
    return "\n".join([head, line(table.header), rule, *map(line, table.rows), ""])


def print_table(out: Console, table: Table) -> None:
    out.print(Text(table.title))
    out.print(rich_table(table))


def show(store: Store, parts: Sequence[str]) -> None:
    """Prints what was measured of some parts to standard output."""
    out = console()
    for part, entries in store.entries():
        if part.name not in parts:
            continue
        out.print(Text(f"\n{part.title}", style="bold"))
        for scope, entry in entries.items():
            if len(entries) > 1:
                out.print(Text(scope, style="italic"))
            if entry["skipped"]:
                out.print(Text(f"not measured: {entry['skipped']}"))
            for table in entry["tables"]:
                print_table(out, Table(**table))
