"""Ctrl-C and SIGTERM as a question that the loop answers between two steps."""

from __future__ import annotations

import signal
import threading

__all__ = ["Interrupt"]


class Interrupt:
    """Within the block, the first signal sets ``asked``; a second one acts as it would have."""

    def __init__(self) -> None:
        self.asked = False
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

    def _ask(self, number: int, _frame) -> None:
        self.asked = True
        signal.signal(number, self._before[number])
