"""How long a batch may take, and the part of it for work whose length nobody knows before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tzk_core.deadline import deadline
from tzk_core.errors import ModelUnavailable, OutOfTime

__all__ = ["ANSWER_SECONDS", "ANSWER_VARIABLE", "Shares"]

ANSWER_VARIABLE = "TZK_ANSWER_SECONDS"
"""Environment variable: seconds of a batch, ``responseTimeout`` of TorchServe; it kills a worker
that passes it."""

ANSWER_SECONDS = 120.0
"""Without the variable."""

SHARE = 0.5
"""Of it for requests of unknown length. The rest of the batch, and what passes between two looks at
the clock, have the other half."""

WHOLE = 0.9
"""Of the time for all: who had as much was alone."""


class Shares:
    """The time for a batch's requests of unknown length, of which none takes another's.

    Each gets an equal part of what is left when its turn comes, so what one leaves is the others'.
    """

    def __init__(self) -> None:
        self._seconds = SHARE * float(os.environ.get(ANSWER_VARIABLE) or ANSWER_SECONDS)
        self._waiting = 0
        self._until: float | None = None

    def expect(self) -> None:
        """One more will have a turn."""
        self._waiting += 1

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within it is the turn of the next: work that looks at the clock ends in time.

        Raises:
            OutOfTime: the time of a whole batch was not enough.
            ModelUnavailable: a part of it was not enough, as others in the batch had theirs.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        share = (self._until - now) / max(self._waiting, 1)
        self._waiting -= 1
        try:
            with deadline(share):
                yield
        except OutOfTime as error:
            if share >= WHOLE * self._seconds:
                raise
            raise ModelUnavailable(
                f"it was not done in {max(share, 0):.1f} s, as other requests of several kinds "
                "came with it; try again"
            ) from error
