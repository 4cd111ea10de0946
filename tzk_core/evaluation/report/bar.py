"""One bar for a whole evaluation: it is of the work in hand, and says which part that is of."""

from __future__ import annotations

from ...training.progress import Reporter, Task

__all__ = ["OneBar"]


class OneBar(Reporter):
    """A reporter whose next task takes the place of the last one."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self.part = ""  # stands before the names of tasks
        self._last: Task | None = None

    def task(self, name: str, total: int, done: int = 0) -> Task:
        if self._last is not None and self._progress is not None:
            self._progress.remove_task(self._last._id)
        self._last = super().task(self.part + name, total, done)
        return self._last
