"""Section 4.1: a t-flow of CIFAR-10 and one of MNIST, each trained alone (Fig. 3, Table 2)."""

from __future__ import annotations

from ..experiment import Experiment, Part
from ..measuring import prior_row
from ..paper import SAID
from ..pictures import learning_curve, samples
from ..rows import Outcome
from ..runs import Run
from ..work import Work

__all__ = ["BASELINES"]


def _alone(run: str, data: str):
    """The part that measures a baseline on its own data set."""

    def measure(work: Work) -> Outcome:
        what = f"p(t) of {data}, trained on it alone"
        row, _ = prior_row(work, run, data, SAID[f"baseline {data}"], what)
        return Outcome([row], [samples(work, run), learning_curve(work, run)])

    return Part(data, (run,), measure)


BASELINES = Experiment(
    name="baselines",
    title="Baselines",
    section="4.1",
    about=(
        "Two t-flows, each of one data set: 3 levels of 32 steps, 512 channels. The paper reports "
        "3.54 bits/dim for CIFAR-10 and 1.11 for MNIST. It does not say on which D; MNIST padded "
        "to 32×32 has D = 1024, of which 784 are the image's, so both are told."
    ),
    runs=(Run("baseline-cifar10"), Run("baseline-mnist")),
    parts=(_alone("baseline-cifar10", "cifar10"), _alone("baseline-mnist", "mnist")),
)
