"""How the codes of each row of a draw were found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Found", "ToldOfFound"]


@dataclass(frozen=True)
class Found:
    """Row by row, so that what is told of some rows does not depend on those drawn with them.

    Args:
        tries: codes that were tried, the last being accepted; None where none is accepted or not.
        sample_sizes: effective, of each row that was resampled by importance, None of the others.
        exact_rows: whether each is a draw from the model's conditional itself.
    """

    tries: list[int] | None
    sample_sizes: list[float | None]
    exact_rows: list[bool]

    @classmethod
    def unasked(cls, count: int, exact: bool) -> Found:
        """Rows whose codes nobody accepts or resamples."""
        return cls(None, [None] * count, [exact] * count)

    @classmethod
    def joined(cls, parts: Iterable[Found]) -> Found:
        """The rows of all parts in order."""
        parts = list(parts)
        tries = None if any(one.tries is None for one in parts) else _all(p.tries for p in parts)
        sizes = _all(one.sample_sizes for one in parts)
        return cls(tries, sizes, _all(one.exact_rows for one in parts))

    def __getitem__(self, rows: slice) -> Found:
        tries = None if self.tries is None else self.tries[rows]
        return Found(tries, self.sample_sizes[rows], self.exact_rows[rows])

    @property
    def acceptance_rate(self) -> float | None:
        """Codes accepted ÷ tried."""
        if self.tries is None:
            return None
        return sum(size is None for size in self.sample_sizes) / max(sum(self.tries), 1)

    @property
    def effective_sample_size(self) -> float | None:
        """The smallest of the rows that were resampled."""
        return min((size for size in self.sample_sizes if size is not None), default=None)

    @property
    def exact(self) -> bool:
        """Whether all rows are."""
        return all(self.exact_rows)


class ToldOfFound:
    """What has a ``found``, and tells of it."""

    found: Found

    @property
    def acceptance_rate(self) -> float | None:
        """Codes accepted ÷ tried; None where nothing is accepted or not."""
        return self.found.acceptance_rate

    @property
    def effective_sample_size(self) -> float | None:
        """The smallest of the rows that were resampled by importance."""
        return self.found.effective_sample_size

    @property
    def exact(self) -> bool:
        """Whether all are draws from the model's conditional itself."""
        return self.found.exact


def _all(lists: Iterable[list]) -> list:
    return [one for each in lists for one in each]
