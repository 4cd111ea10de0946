"""What a run shows while it works: rate, bits/dim, time left, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Reporter"]

PLAIN_EVERY = 15.0  # seconds between lines where there is no terminal to draw a bar on


class Reporter:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet)
        self._progress: Progress | None = None

    @contextlib.contextmanager
    def live(self) -> Iterator[Reporter]:
        """Bars are drawn within the block."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        )
        if not self.console.is_terminal:
            yield self
            return
        with Progress(*columns, console=self.console) as self._progress:
            yield self
        self._progress = None

    def say(self, text: str) -> None:
        """One line, as it is: names of files may look like markup or emoji."""
        self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def task(self, name: str, total: int, done: int = 0) -> Task:
        """A piece of work of ``total`` units."""
        return Task(self, name, total, done)


class Task:
    """One bar."""

    def __init__(self, reporter: Reporter, name: str, total: int, done: int) -> None:
        self.reporter, self.name, self.total, self.done = reporter, name, total, done
        self.began, self.began_at = time.monotonic(), done
        self._spoke = self.began
        bars = reporter._progress
        self._id: TaskID | None = (
            bars.add_task(name, total=total, completed=done, note="") if bars else None
        )

    def advance(self, units: int = 1, note: str = "") -> None:
        """``units`` more are done."""
        self.done += units
        now = time.monotonic()
        if self._id is not None:
            self.reporter._progress.update(self._id, completed=self.done, note=note)
        elif now - self._spoke >= PLAIN_EVERY:
            self._spoke = now
            a_unit = (now - self.began) / max(self.done - self.began_at, 1)
            left = a_unit * (self.total - self.done)
            self.reporter.say(f"{self.name} {self.done}/{self.total} {note} {left:.0f} s left")

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self.began
