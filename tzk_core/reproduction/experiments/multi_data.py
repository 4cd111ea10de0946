"""Section 4.1: one t-flow of six data sets, and one of MNIST with Omniglot (Fig. 4)."""

from __future__ import annotations

from ...evaluation.figures import mean_of
from ..experiment import Experiment, Part
from ..measuring import prior_of, prior_row
from ..paper import BITS, SAID
from ..pictures import learning_curve, samples
from ..rows import Outcome, claim_row
from ..runs import Run
from ..work import Work

__all__ = ["MULTI_DATA"]


def _together(run: str, baseline: str, data: str):
    """The part that compares a t-flow of several data sets with the baseline of one of them."""

    def measure(work: Work) -> Outcome:
        said, alone = SAID[f"{run} {data}"], SAID[f"baseline {data}"]
        row, prior = prior_row(work, run, data, said, f"p(t) of {data}, trained on several")
        pictures = [samples(work, run), learning_curve(work, run, baseline)]
        own = prior_of(work, baseline, data)
        gap = mean_of(prior.bits - own.bits, "gap", f"{BITS} on D = {prior.dims}")
        claim = claim_row(
            f"p(t) of {data} is slightly worse than when it is trained alone",
            f"{said.figure:g} against {alone.figure:g}",
            said.where,
            "prior",
            gap,
            work.told_of(run, data),
            work.conditions(run, baseline, test=[data]),
            sized=True,
            also={"alone": own.found.row.bits, "together": prior.found.row.bits},
        )
        return Outcome([row, claim], pictures)

    return Part(data, (run, baseline), measure)


MULTI_DATA = Experiment(
    name="multi-data",
    title="Several data sets in one t-flow",
    section="4.1",
    about=(
        "The baselines' architecture on all six data sets (Table 1), and on MNIST with Omniglot. "
        "The paper reports 3.6 bits/dim for CIFAR-10's test images instead of 3.54, and 1.28 for "
        "MNIST's instead of 1.11: slightly worse, with more diverse samples. Beside the figures "
        "stands the difference from the baseline, paired by image. A small run draws the data "
        "sets equally often, and so sees a share of the images of CIFAR-10 that the baseline does."
    ),
    runs=(
        Run("baseline-cifar10"),
        Run("baseline-mnist"),
        Run("multi-data"),
        Run("mnist-omniglot"),
    ),
    parts=(
        _together("multi-data", "baseline-cifar10", "cifar10"),
        _together("mnist-omniglot", "baseline-mnist", "mnist"),
    ),
)
