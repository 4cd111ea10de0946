"""Ctrl-C and SIGTERM as a question that the loop answers between two steps."""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["LAUNCHER", "Interrupt"]

LAUNCHER = "TZK_LAUNCHER_PID"  # in the environment of a process that `tzk train` started


class Interrupt:
    """Within the block, the first signal sets ``asked``; a second one acts as it would have.

    A process that a launcher started is also asked when its launcher is no more.
    """

    def __init__(self) -> None:
        self._asked = False
        launcher = os.environ.get(LAUNCHER)
        self._launcher = int(launcher) if launcher else None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        # Only the main thread may set handlers; elsewhere whoever owns it decides.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def asked(self) -> bool:
        """Whether to stop at the next step."""
        orphaned = self._launcher is not None and os.getppid() != self._launcher
        return self._asked or orphaned

    def _ask(self, number: int, _frame) -> None:
        self._asked = True
        signal.signal(number, self._before[number])
