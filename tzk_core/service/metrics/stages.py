"""Where the time of a batch goes: one clock, of one stage at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

__all__ = ["Stopwatch", "stage"]

_RUNNING: ContextVar[Stopwatch | None] = ContextVar("running", default=None)


class Stopwatch:
    """Seconds by stage; a stage within another takes its time from it.

    ``seconds`` holds the stages that were entered. Without any stage, time goes uncounted.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stages: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._count()
        self._stages.append(name)
        token = _RUNNING.set(self)
        try:
            yield
        finally:
            _RUNNING.reset(token)
            self._count()
            self._stages.pop()

    def _count(self) -> None:
        now = perf_counter()
        if self._stages:
            name = self._stages[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The stage ``name`` of the batch that this thread answers; nothing when it answers none."""
    running = _RUNNING.get()
    if running is None:
        yield
        return
    with running.stage(name):
        yield
