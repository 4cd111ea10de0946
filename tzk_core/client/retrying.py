"""When to ask again, and after how long.

Every endpoint computes and stores nothing, so a repeated request does no harm; without a seed the
second answer may differ from the one that was lost, as any two would.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

__all__ = ["Outcome", "Retry", "Tries"]

Outcome = httpx.Response | httpx.RequestError

LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""The connection was refused or broke. A read that timed out is none of these: the server may still
be at work on it, and a second one would be too much for it as well."""

LEAST_SECONDS = 0.001
"""Of a try's limit, for the rounding of clocks: 0 would be refused by no sensible system call."""


@dataclass(frozen=True)
class Retry:
    """Exponential back-off with full jitter, after a 503 with Retry-After or a lost connection.

    Args:
        tries: requests in all, the first included.
        base: seconds of the longest first wait; it doubles with each try.
        longest: seconds that no drawn wait exceeds.
        total: seconds after which no try starts, and each try in flight is given up.
        clock, now, rng: monotonic seconds, seconds since 1970, source of the jitter.
    """

    tries: int = 4
    base: float = 0.25
    longest: float = 8.0
    total: float = 60.0
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)


class Tries:
    """The tries of one request, from now on.

    Args:
        timeout: seconds that one try may wait for the server.
    """

    def __init__(self, retry: Retry, timeout: float) -> None:
        self._retry, self._timeout = retry, timeout
        self._started = retry.clock()
        self.made = 0

    def begin(self) -> float:
        """Seconds that the next try may wait for the server."""
        self.made += 1
        return max(LEAST_SECONDS, min(self._timeout, self._retry.total - self._passed()))

    def wait(self, outcome: Outcome) -> float | None:
        """Seconds until the next try, or None if ``outcome`` is final."""
        asked = self._asked(outcome)
        if asked is None or self.made >= self._retry.tries:
            return None
        most = min(self._retry.longest, self._retry.base * 2 ** (self.made - 1))
        seconds = max(asked, self._retry.rng.uniform(0, most))
        return seconds if self._passed() + seconds < self._retry.total else None

    def _passed(self) -> float:
        return self._retry.clock() - self._started

    def _asked(self, outcome: Outcome) -> float | None:
        """Seconds that the server asks to wait; None if another try is no use."""
        if isinstance(outcome, httpx.Response):
            header = outcome.headers.get("Retry-After")
            if outcome.status_code != 503 or header is None:
                return None
            return _seconds(header, self._retry.now())
        return 0.0 if isinstance(outcome, LOST) else None


def _seconds(header: str, now: float) -> float:
    """Of a Retry-After (RFC 9110, 10.2.3): a number or a date; 0 for anything else."""
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return (date - datetime.fromtimestamp(now, timezone.utc)).total_seconds()
