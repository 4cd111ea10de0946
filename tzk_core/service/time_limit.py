"""How long a batch may take, and the part of it for work whose length nobody knows before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tzk_core.deadline import deadline, seconds_left

__all__ = ["ANSWER_SECONDS", "ANSWER_VARIABLE", "Shares"]

ANSWER_VARIABLE = "TZK_ANSWER_SECONDS"
"""Environment variable: seconds of a batch, ``responseTimeout`` of TorchServe; it kills a worker
that passes it."""

ANSWER_SECONDS = 120.0
"""Without the variable."""

SHARE = 0.5
"""Of it for requests of unknown length. The rest of the batch, and what passes between two looks at
the clock, have the other half."""


class Shares:
    """The time for a batch's requests of unknown length, of which none takes another's.

    Each gets an equal part of what is left when its turn comes, so what one leaves is the others'.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._seconds = SHARE * float(os.environ.get(ANSWER_VARIABLE) or ANSWER_SECONDS)

    @contextmanager
    def all(self) -> Iterator[None]:
        """Within it are the turns of all."""
        with deadline(self._seconds):
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within it is the turn of the next: what looks at the clock raises ``OutOfTime``."""
        left = seconds_left()
        share = None if left is None else left / max(self._left, 1)
        self._left -= 1
        with deadline(share):
            yield
