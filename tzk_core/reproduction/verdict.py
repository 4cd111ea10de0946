"""The rule by which a figure of the paper counts as reproduced.

A figure (`figure_verdict`), in this order:

1. *not comparable*, if it is of another kind: another estimator, test images that stand in for the
   paper's, or bits/dim of a model that learned from stand-ins.
2. *reproduced*, if ours is worse by no more than 0.05 bits/dim (0.02 of a share) even with two of
   its standard errors added, on every D that the paper may have meant.
3. *not comparable*, if it is that on one D and not on another: the paper does not say which it
   uses.
4. *not comparable*, if it is worse, and the model or its training is smaller than the paper's or
   learned from stand-ins: a smaller model that is worse says nothing about the larger one.
5. *not reproduced* otherwise, and where ours is not finite.

A claim (`claim_verdict`), which compares figures of ours: *reproduced*, if the difference has the
sign that the paper claims by more than two standard errors (of fewer than 30 rounds as many more as
Student's distribution asks for), *not comparable*, if it was measured
once, *not reproduced* otherwise. That the models were smaller, or learned from stand-ins, is told
beside it. A claim that depends on how large models are, or for how long each was trained, is *not
comparable* where they are smaller: one of a kind and its own t-flow does not, one of two t-flows
that saw different numbers of images does. Standard errors are over images, samples or rounds; that
another seed would have trained another model is in none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..evaluation.held_out import Figure
from .paper import BITS, SHARE, Said

__all__ = [
    "ERRORS",
    "NOT_COMPARABLE",
    "NOT_REPRODUCED",
    "REPRODUCED",
    "WITHIN",
    "Conditions",
    "Verdict",
    "claim_verdict",
    "figure_verdict",
    "not_comparable",
]

REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"
WITHIN = {BITS: 0.05, SHARE: 0.02}
ERRORS = 2.0  # standard errors
# Student's 97.5 % quantiles of 1 to 28 degrees of freedom: of means of 2 to 29.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048),
)


@dataclass(frozen=True)
class Conditions:
    """How what was run differs from what the paper ran."""

    smaller: tuple[str, ...] = ()  # each a difference of model or training, in words
    replaced: tuple[str, ...] = ()  # data sets that others stood for in training
    tested: tuple[str, ...] = ()  # data sets whose test images are others'

    @property
    def told(self) -> str:
        """All of it in a few words; empty where nothing differs."""
        parts = []
        if self.smaller:
            parts.append("smaller")
        if self.replaced:
            parts.append("with stand-ins in training")
        if self.tested:
            parts.append("with stand-ins for test images")
        return ", ".join(parts)

    def __or__(self, other: Conditions) -> Conditions:
        """Those of two runs that are compared."""
        pairs = (
            (self.smaller, other.smaller),
            (self.replaced, other.replaced),
            (self.tested, other.tested),
        )
        return Conditions(*(tuple(dict.fromkeys((*a, *b))) for a, b in pairs))


@dataclass(frozen=True)
class Verdict:
    """A verdict in words, and why."""

    word: str
    why: str

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


def not_comparable(why: str) -> Verdict:
    """What cannot be compared by its kind."""
    return Verdict(NOT_COMPARABLE, why)


def figure_verdict(said: Said, ours: Mapping[str, Figure], conditions: Conditions) -> Verdict:
    """Whether ours reaches a figure of the paper.

    Args:
        said: the paper's.
        ours: the same quantity by the same estimator, in each unit that the paper may have meant
            (bits/dim on D, on the native D; a share has one).
        conditions: how what was run differs.
    """
    if conditions.tested:
        return not_comparable(f"test images stand in for {', '.join(conditions.tested)}")
    if conditions.replaced and said.unit == BITS:
        return not_comparable(f"stand-ins for {', '.join(conditions.replaced)} in training")
    told = conditions.told
    if any(not math.isfinite(each.mean) for each in ours.values()):
        why = "ours is not finite"
        return not_comparable(f"{why}, but {told}") if told else Verdict(NOT_REPRODUCED, why)
    gaps = {unit: _shortfall(said, each) for unit, each in ours.items()}
    reached = [unit for unit, gap in gaps.items() if gap <= _margin(said, ours[unit])]
    missed = [unit for unit in gaps if unit not in reached]
    if not missed:
        why = _amount(-max(gaps.values()), said.unit)
        return Verdict(REPRODUCED, f"{why}, although {told}" if told else why)
    if reached:
        return not_comparable(
            f"the paper does not say on which D: reached on {_listed(reached)}, not on "
            f"{_listed(missed)}"
        )
    why = _amount(-min(gaps.values()), said.unit)
    if told:
        return not_comparable(f"{why}, but {told}")
    return Verdict(NOT_REPRODUCED, why)


def claim_verdict(difference: Figure, conditions: Conditions, *, sized: bool = False) -> Verdict:
    """Whether a difference of figures of ours has the sign that the paper claims.

    Args:
        difference: positive where the claim is right, with the standard error of the difference.
        conditions: told beside the verdict.
        sized: the claim depends on how large the models are or for how long they were trained.
    """
    mean, error = difference.mean, difference.standard_error
    if not math.isfinite(mean):
        return Verdict(NOT_REPRODUCED, "ours is not finite")
    if math.isnan(error):
        return not_comparable("measured once: there is no standard error")
    word, why = REPRODUCED, ""
    errors = _errors(difference.count)
    if mean <= errors * error:
        word = NOT_REPRODUCED
        other_way = mean < -errors * error
        within = "two" if errors == ERRORS else f"{errors:.3g}"
        why = "it is the other way round" if other_way else f"within {within} standard errors"
    if sized and conditions.told:
        return not_comparable(f"{why or 'so it is here'}, but {conditions.told}")
    return Verdict(word, ", ".join(part for part in (why, conditions.told) if part))


def _errors(count: int) -> float:
    """Standard errors that a mean of ``count`` may be off: of few, Student's 97.5 % quantile."""
    return _STUDENT[count - 2] if 2 <= count < 2 + len(_STUDENT) else ERRORS


def _shortfall(said: Said, ours: Figure) -> float:
    """How much worse ours is, in the figure's unit."""
    return ours.mean - said.figure if said.unit == BITS else said.figure - ours.mean


def _margin(said: Said, ours: Figure) -> float:
    """By how much ours may be worse: less, the less is known of it."""
    error = 0.0 if math.isnan(ours.standard_error) else ours.standard_error
    return WITHIN[said.unit] - ERRORS * error


def _amount(better: float, unit: str) -> str:
    size = f"{abs(better):.2f} bits/dim" if unit == BITS else f"{abs(better):.3f}"
    return f"{size} {'better' if better >= 0 else 'worse'}"


def _listed(units: list[str]) -> str:
    return " and ".join(unit.removeprefix(f"{BITS} on ") for unit in units)
