"""Sections 1 and 5: everything trained together, against a t-flow first and its kinds after."""

from __future__ import annotations

import math
from dataclasses import replace

from ...evaluation.figures import mean_of
from ...evaluation.report.result import value
from ..experiment import Experiment, Part
from ..measuring import compared, kind_rows, prior_of, prior_row
from ..paper import BITS
from ..pictures import learning_curve, samples
from ..rows import NONE, Outcome, claim_row, other_row
from ..runs import Run, facts_of
from ..work import Work

__all__ = ["END_TO_END"]

TOGETHER, PHASES = "end-to-end", "specialise-multi"
AS_GOOD = 0.05  # bits/dim: what counts as no worse


def _flow(work: Work) -> Outcome:
    """p(t) of the t-flow that was trained with its kinds, and how far it is from the other."""
    rows = []
    for data in ("cifar10", "mnist"):
        row, mine = prior_row(work, TOGETHER, data, None, f"p(t) of {data}, trained with its kinds")
        other = prior_of(work, PHASES, data)
        gain = mean_of(other.bits - mine.bits, "gain", f"{BITS} on D = {mine.dims}")
        what = f"p(t) of {data} better than that of the t-flow trained alone"
        why = "the paper gives no figure"
        told = work.told_of(TOGETHER, data)
        rows += [row, other_row(what, NONE, "5", "prior", gain, told, why, places=4)]
    pictures = [samples(work, TOGETHER), learning_curve(work, TOGETHER, PHASES)]
    return Outcome(rows, pictures, [_shown_to(work)])


def _shown_to(work: Work) -> str:
    """How many images each t-flow saw, and for how long each run was trained, in sentences."""
    told = []
    for run, name in ((TOGETHER, "Trained together"), (PHASES, "In two phases")):
        recipe = work.recipe(run)
        seen = sum(s.steps * s.batch for s in recipe.stages if s.train in ("flow", "all"))
        seconds = facts_of(work.folder(run), recipe)["seconds"]
        told.append(f"{name}, the t-flow saw {seen:,} images, and all training took {seconds:,} s.")
    return " ".join(told)


def _kind(data: str):
    """The part that measures one data set's kind against that of the frozen t-flow."""

    def measure(work: Work) -> Outcome:
        rows, together = kind_rows(work, TOGETHER, data, None, kind=data, where="5", gains=False)
        pictures = [samples(work, TOGETHER, data)]
        _, phases = kind_rows(work, PHASES, data, None, kind=data, where="5", gains=False)
        a, b = (compared(found, data, work)[-1] for found in (together, phases))
        dims = math.prod(work.model(TOGETHER).observation_shape)
        gain = mean_of((a.log_prob - b.log_prob) / (dims * math.log(2)), "gain", BITS)
        told = f"{value(gain, 4)} {BITS} on D = {dims} better than in two phases"
        rows.append(
            claim_row(
                f"p(t|{data}) no worse than in two phases by {AS_GOOD:g} bits/dim",
                "efficient to train end to end, or in two phases",
                "5",
                f"importance, N = {a.row.draws}",
                replace(gain, mean=gain.mean + AS_GOOD),
                work.told_of(TOGETHER, data),
                work.conditions(TOGETHER, PHASES, test=[data]),
                sized=True,  # the t-flows saw different numbers of images
                shown=told,
                also={"together": a.row.bits, "two phases": b.row.bits},
            )
        )
        return Outcome(rows, pictures)

    return Part(data, (TOGETHER, PHASES), measure)


END_TO_END = Experiment(
    name="end-to-end",
    title="Everything trained together",
    section="1, 5",
    about=(
        "The t-flow of six data sets and the kinds CIFAR-10 and MNIST trained together from the "
        "first step, which the paper calls efficient without a figure. So it is compared with "
        "specialise-multi, whose t-flow is trained first and then frozen. Everything here is shown "
        "as many images as its two stages are together, so this t-flow sees more of them than "
        "that one, and longer."
    ),
    runs=(Run(PHASES), Run(TOGETHER)),
    parts=(Part("flow", (TOGETHER, PHASES), _flow), _kind("cifar10"), _kind("mnist")),
)
