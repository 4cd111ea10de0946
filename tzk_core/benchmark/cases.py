"""What is asked of every backend: scoring and sampling, and what knowledge adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Case", "cases_of"]


@dataclass(frozen=True)
class Case:
    """Requests of one kind.

    Args:
        endpoint: that answers them.
        given: the path of the knowledge that they name, if they do.
    """

    endpoint: str
    given: str | None = None

    @property
    def name(self) -> str:
        """As rows are told apart."""
        return self.endpoint if self.given is None else f"{self.endpoint} given={self.given}"


def cases_of(model: TzK) -> tuple[Case, ...]:
    """Without knowledge the t-flow alone is at work; with it also the parts of its first path, and
    the discriminators of all of them.
    """
    first = next(iter(model.paths()), None)
    if first is None:
        return Case("tzk_nll"), Case("tzk_sample")
    return (
        Case("tzk_nll"),
        Case("tzk_nll", first),
        Case("tzk_sample"),
        Case("tzk_sample", first),
        Case("tzk_posterior"),
    )
