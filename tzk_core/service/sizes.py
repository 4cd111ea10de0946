"""How many images go through the model at once: a few fixed sizes.

float32 results of a batch of 1 and of 16 differ by about 1e-7, as other kernels add up in another
order, and 1e-7 is now and then another grey level. So every batch is filled up to one of a few
sizes at which this worker's results were found equal bit for bit (:mod:`tzk_core.service.warm`),
and an answer has the same bytes alone and among strangers (design, section 8). They are few, so
that each has run before the first request. What asks for a kind goes through more networks, of
which fewer sizes may agree: it has sizes of its own, so that what does not is not filled up further
than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

__all__ = [
    "DEFAULT_SIZES",
    "SIZES",
    "UNMEASURED",
    "Agreed",
    "at_most",
    "current_sizes",
    "filled",
    "of_kinds",
    "using",
]

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""No batch is more than half again as large as what was asked for."""

DEFAULT_SIZES = SIZES[3:]
"""Where nothing was measured: the smallest batches are those that take other kernels on a CPU."""


class Agreed(NamedTuple):
    """The sizes at which rows have the same bits, smallest first."""

    plain: tuple[int, ...]  # of the t-flow alone
    kinds: tuple[int, ...]  # of what asks for a kind


UNMEASURED = Agreed(DEFAULT_SIZES, DEFAULT_SIZES)

_sizes: ContextVar[Agreed] = ContextVar("sizes", default=UNMEASURED)
_of_kinds: ContextVar[bool] = ContextVar("of_kinds", default=False)

Row = TypeVar("Row")


def current_sizes() -> tuple[int, ...]:
    """The sizes that batches have here, smallest first."""
    return _sizes.get()[_of_kinds.get()]


@contextmanager
def using(sizes: Sequence[int], kinds: Sequence[int] | None = None) -> Iterator[None]:
    """Within it, batches have one of ``sizes``, those that ask for a kind one of ``kinds``."""
    own = tuple(sorted(sizes))
    token = _sizes.set(Agreed(own, own if kinds is None else tuple(sorted(kinds))))
    try:
        yield
    finally:
        _sizes.reset(token)


@contextmanager
def of_kinds(asked: bool = True) -> Iterator[None]:
    """Within it, the batches are of what asks for a kind, or are not."""
    token = _of_kinds.set(asked)
    try:
        yield
    finally:
        _of_kinds.reset(token)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Within it, batches have one of the present sizes up to ``size``, or the smallest."""
    fewer = [[n for n in own if n <= size] or own[:1] for own in _sizes.get()]
    with using(*fewer):
        yield


def filled(count: int, most: int | None = None) -> Iterator[tuple[slice, int]]:
    """``range(count)`` in slices, each with the size that it is to be filled up to.

    >>> with using([2, 4]):
    ...     [(part.stop - part.start, size) for part, size in filled(9)]
    [(4, 4), (4, 4), (1, 2)]

    Args:
        count: how many rows there are.
        most: no size above it, unless it is the smallest.
    """
    smallest, *larger = current_sizes()
    sizes = [smallest, *(one for one in larger if most is None or one <= most)]
    start = 0
    while start < count:
        left = count - start
        size = next((one for one in sizes if one >= left), sizes[-1])
        stop = start + min(left, size)
        yield slice(start, stop), size
        start = stop
