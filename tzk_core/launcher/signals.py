"""SIGTERM and SIGHUP end a ``with`` block in order, as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Ended", "signals_end"]


class Ended(BaseException):
    """A signal asked for the end; no ``except Exception`` stops it on its way."""


@contextlib.contextmanager
def signals_end() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise ``Ended``, which ends the block, as Ctrl-C does.

    Outside the main thread, where Python has no signals, it changes nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        with contextlib.suppress(Ended, KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
