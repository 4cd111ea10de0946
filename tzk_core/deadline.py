"""A time after which long work gives up, told to it from outside.

Work whose length nobody knows before it is done (annealing a product of kinds) asks ``check()``
between its steps. A server sets the deadline, so that a request that would take too long is
refused by the worker itself, which lives on; a library user sets none and waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import OutOfTime

__all__ = ["check", "deadline", "seconds_left"]

_until: ContextVar[float | None] = ContextVar("until", default=None)


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Within it, work that asks has so many seconds at most, or less if it had less before.

    Args:
        seconds: from now; None changes nothing.
    """
    before = _until.get()
    wanted = None if seconds is None else time.monotonic() + seconds
    token = _until.set(min((one for one in (before, wanted) if one is not None), default=None))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left() -> float | None:
    """Seconds to the deadline, negative after it; None where there is none."""
    until = _until.get()
    return None if until is None else until - time.monotonic()


def check() -> None:
    """Goes on, or gives up.

    Raises:
        OutOfTime: the deadline has passed.
    """
    left = seconds_left()
    if left is not None and left < 0:
        raise OutOfTime("it is not done in the time that it may take; ask for less")
