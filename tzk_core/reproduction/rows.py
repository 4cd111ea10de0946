"""The rows of an experiment's table, and how they are made of measured figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..evaluation.held_out import Figure
from ..evaluation.likelihoods import Likelihood
from ..evaluation.report.result import Picture, value
from .paper import BITS, SHARE, Said
from .verdict import Conditions, Verdict, claim_verdict, figure_verdict, not_comparable

__all__ = [
    "HEADER",
    "NONE",
    "Outcome",
    "Row",
    "cells",
    "claim_row",
    "likelihood_row",
    "other_row",
    "share_row",
]

HEADER = ["what", "paper", "where", "estimator", "ours", "on native D", "data", "verdict"]
NONE = "–"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    paper: str  # its figure or claim; NONE where it gives none
    where: str  # the section or figure of the paper
    estimator: str
    ours: str  # as it is shown, with its standard error and unit
    native: str  # the same on the native D; NONE for what is no bits/dim, or where that is D
    data: str
    verdict: Verdict
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a part of an experiment found."""

    rows: list[Row]
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences


def cells(row: Row) -> list[str]:
    """A row as it is shown, in the order of HEADER."""
    middle = [row.paper, row.where, row.estimator, row.ours, row.native, row.data]
    return [row.what, *middle, str(row.verdict)]


def likelihood_row(
    what: str, said: Said | None, found: Likelihood, data: str, conditions: Conditions
) -> Row:
    """A likelihood beside the paper's figure.

    Where the estimator is not the paper's, the verdict says so. ``reconstruction`` is compared,
    being what the paper reports (Appendix C), and is no likelihood of t.
    """
    every = {found.bits.unit: found.bits}
    if not math.isclose(found.bits.mean, found.bits_native.mean, rel_tol=1e-6):
        every[found.bits_native.unit] = found.bits_native
    if said is None:
        verdict = not_comparable("the paper gives no figure")
    elif said.estimator != found.estimator:
        verdict = not_comparable(f"the paper's figure is of the kind {said.estimator}")
    else:
        verdict = figure_verdict(said, every, conditions)
    return Row(
        what=what,
        paper=NONE if said is None else f"{said.figure:g}",
        where=NONE if said is None else said.where,
        estimator=f"importance, N = {found.draws}" if found.draws else found.estimator,
        ours=_bits(found.bits),
        native=_bits(found.bits_native) if len(every) > 1 else NONE,
        data=data,
        verdict=verdict,
        figures=every,
    )


def share_row(what: str, said: Said, ours: Figure, data: str, conditions: Conditions) -> Row:
    """A share beside the paper's."""
    verdict = figure_verdict(said, {SHARE: ours}, conditions)
    paper, shown = f"{said.figure:g}", value(ours)
    return Row(what, paper, said.where, NONE, shown, NONE, data, verdict, {SHARE: ours})


def claim_row(
    what: str,
    paper: str,
    where: str,
    estimator: str,
    difference: Figure,
    data: str,
    conditions: Conditions,
    *,
    sized: bool = False,
    shown: str | None = None,
    also: dict[str, Figure] | None = None,
) -> Row:
    """A claim of the paper, by a difference of figures that is positive where it is right.

    Args:
        sized: see :func:`claim_verdict`.
        shown: what stands under "ours"; the difference by default.
        also: the figures that the difference is of.
    """
    ours = f"{value(difference, 4)} {difference.unit}" if shown is None else shown
    figures = {"difference": difference} | (also or {})
    verdict = claim_verdict(difference, conditions, sized=sized)
    return Row(what, paper, where, estimator, ours, NONE, data, verdict, figures)


def other_row(
    what: str,
    paper: str,
    where: str,
    estimator: str,
    ours: Figure,
    data: str,
    why: str,
    *,
    places: int = 3,
) -> Row:
    """A figure that the paper's cannot be compared with, and why."""
    shown = f"{value(ours, places)} {ours.unit}"
    verdict = not_comparable(why)
    return Row(what, paper, where, estimator, shown, NONE, data, verdict, {ours.unit: ours})


def _bits(figure: Figure) -> str:
    return f"{value(figure)} ({figure.unit.removeprefix(f'{BITS} on ')})"
