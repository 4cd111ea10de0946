"""An experiment of the paper: the runs that it trains, and the parts that measure them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .rows import Outcome
from .runs import Run
from .work import Work

__all__ = ["Experiment", "Part", "recipes_of"]


class Part(NamedTuple):
    """What is measured at once, and kept when it is done."""

    name: str
    runs: tuple[str, ...]  # whose models it looks at
    measure: Callable[[Work], Outcome]


class Experiment(NamedTuple):
    """One experiment of the paper."""

    name: str
    title: str
    section: str  # of the paper
    about: str  # what the paper did, what it found, and what is done here: Markdown
    runs: tuple[Run, ...]  # in the order in which they train
    parts: tuple[Part, ...]
    recipes: tuple[str, ...] = ()  # further ones that it reads, without training them


def recipes_of(experiment: Experiment) -> list[str]:
    """The names of the recipes of its runs, and of those it reads."""
    return [run.recipe for run in experiment.runs] + list(experiment.recipes)
