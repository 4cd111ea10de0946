"""How the codes of one request were found, though many requests are drawn together.

Images of strangers go through the model in one batch. What is told of a request's codes (how many
tries they took, whether one had to be resampled) is of its own seeds alone. These are asked again
of the discriminator on codes, which takes a small part of the time of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tzk_core.conditional import Conditional, Draw
from tzk_core.randomness import Rows
from tzk_core.service.seeds import filled_seeds

__all__ = ["Acceptance", "of_draw", "of_seeds", "together"]


class Acceptance(NamedTuple):
    """What an answer tells of its codes.

    Args:
        rate: accepted ÷ tried; ``None`` where no code was drawn, or none could be refused.
        effective_sample_size: the smallest of the rows that were resampled, if any was.
        exact: whether these are draws from the model's conditional itself.
    """

    rate: float | None
    effective_sample_size: float | None
    exact: bool


def of_draw(drawn: Draw) -> Acceptance:
    """Of one batch, without its images and codes."""
    return Acceptance(drawn.acceptance_rate, drawn.effective_sample_size, drawn.exact)


def of_seeds(distribution: Conditional, seeds: Sequence[int]) -> Acceptance:
    """Of these seeds alone: what ``together`` says when nothing else is drawn with them."""
    found = []
    for piece in filled_seeds(seeds):
        codes = distribution.lineage.accepted_deepest(
            Rows(piece),
            temperature=distribution.code_temperature,
            shortcut=distribution.paper_sampler,
        )
        rate = None if distribution.paper_sampler else codes.acceptance_rate
        exact = codes.exact and distribution.temperature == 1.0
        found.append(Acceptance(rate, codes.effective_sample_size, exact))
    return together(found)


def together(found: Sequence[Acceptance]) -> Acceptance:
    """Of all that was drawn, in batches of fixed sizes."""
    rates, sizes, exact = zip(*found)
    return Acceptance(
        None if None in rates else sum(rates) / len(rates),
        min((size for size in sizes if size is not None), default=None),
        all(exact),
    )
