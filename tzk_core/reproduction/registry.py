"""The paper's experiments, by name."""

from __future__ import annotations

from ..errors import UsageError
from .experiment import Experiment
from .experiments.baselines import BASELINES
from .experiments.cifar_bits import CIFAR_BITS
from .experiments.cost import COST
from .experiments.end_to_end import END_TO_END
from .experiments.hierarchy import HIERARCHY
from .experiments.interpolation import INTERPOLATION
from .experiments.multi_data import MULTI_DATA
from .experiments.specialise import SPECIALISE_CIFAR, SPECIALISE_MULTI

__all__ = ["EXPERIMENTS", "find"]

EXPERIMENTS = {
    each.name: each
    for each in (
        BASELINES,
        MULTI_DATA,
        INTERPOLATION,
        SPECIALISE_CIFAR,
        SPECIALISE_MULTI,
        COST,
        HIERARCHY,
        CIFAR_BITS,
        END_TO_END,
    )
}


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: there is none; the error lists those there are.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
