"""Section 4.3: data sets as kinds on a frozen t-flow (Fig. 6 and 7, Table 2)."""

from __future__ import annotations

from ..experiment import Experiment, Part
from ..measuring import against_baseline, kind_rows, prior_row
from ..paper import SAID
from ..pictures import learning_curve, samples
from ..rows import Outcome
from ..runs import Run
from ..work import Work

__all__ = ["SPECIALISE_CIFAR", "SPECIALISE_MULTI"]


BASELINE = "baseline-cifar10"


def _kind(
    experiment: str,
    data: str,
    where: str,
    *,
    claim: str | None = None,
    against: str | None = None,
):
    """The part that measures one data set's kind.

    Args:
        claim: what the paper says of the kind and its own t-flow.
        against: what it says of the kind and of the baseline's t-flow.
    """
    run = experiment
    runs = (run,) if against is None else (run, BASELINE)

    def measure(work: Work) -> Outcome:
        said = SAID[f"{experiment} {data}"]
        rows, found = kind_rows(work, run, data, said, kind=data, where=where, claim=claim)
        if against is not None:
            rows += against_baseline(work, run, data, found, BASELINE, against, where)
        return Outcome(rows, [samples(work, run, data)])

    return Part(data, runs, measure)


def _cifar_flow(work: Work) -> Outcome:
    """The t-flow that is frozen, on the data set that it was trained on."""
    run, said = "specialise-cifar-flow", SAID["specialise-cifar flow"]
    row, _ = prior_row(work, run, "cifar10", said, "p(t) of cifar10, of the weaker t-flow")
    return Outcome([row], [samples(work, run), learning_curve(work, run)])


def _multi_flow(work: Work) -> Outcome:
    """The t-flow of all data sets that is frozen."""
    run = "specialise-multi"
    rows = [
        prior_row(work, run, data, None, f"p(t) of {data}, of the frozen t-flow")[0]
        for data in ("cifar10", "mnist")
    ]
    return Outcome(rows, [samples(work, run), learning_curve(work, run)])


SPECIALISE_CIFAR = Experiment(
    name="specialise-cifar",
    title="Specialising a t-flow of CIFAR-10",
    section="4.3",
    about=(
        "A t-flow of 3 levels of 20 steps is trained on CIFAR-10 alone (3.71 bits/dim) and frozen. "
        "On it CIFAR-10 and MNIST are learned as kinds, each with the other's images as its "
        "negatives and a z-flow of 4 steps. The paper reports 2.99 for CIFAR-10 and 1.33 for "
        "MNIST, on a t-flow that never saw a digit. These are of the `reconstruction` kind "
        "(Appendix C): the cost of the code is left out. Beside them stands the importance bound, "
        "which is a likelihood. The kinds are fitted in parallel, a process each. A small t-flow "
        "is far from trained, and a kind, with a z-flow of its own, makes up for that too: what it "
        "gains is not all due to knowing the kind."
    ),
    runs=(Run("specialise-cifar-flow"), Run("specialise-cifar", on="specialise-cifar-flow")),
    parts=(
        Part("flow", ("specialise-cifar-flow",), _cifar_flow),
        _kind(
            "specialise-cifar",
            "cifar10",
            "4.3, Fig. 6",
            claim="2.99, better than the t-flow's 3.71",
        ),
        _kind("specialise-cifar", "mnist", "4.3, Fig. 6"),
    ),
)

SPECIALISE_MULTI = Experiment(
    name="specialise-multi",
    title="Specialising a t-flow of six data sets",
    section="4.3",
    about=(
        "A t-flow of 3 levels of 20 steps is trained on all six data sets and frozen; on it "
        "CIFAR-10 and MNIST are learned as kinds, both at once. The paper reports 3.1 bits/dim "
        "for CIFAR-10 and 1.02 for MNIST, again of the `reconstruction` kind, and sets them beside "
        "the baselines' 3.54 and 1.11. CIFAR-10 is compared with its baseline, paired by image; "
        "MNIST is not, as its baseline is of grey images and the kind of RGB ones."
    ),
    runs=(Run(BASELINE), Run("specialise-multi")),
    parts=(
        Part("flow", ("specialise-multi",), _multi_flow),
        _kind(
            "specialise-multi",
            "cifar10",
            "4.3, Fig. 7",
            against="3.1, better than the baseline's 3.54",
        ),
        _kind("specialise-multi", "mnist", "4.3, Fig. 7"),
    ),
)
