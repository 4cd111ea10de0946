"""Section 4.3, "In terms of cost": kinds on a frozen t-flow against the baseline's time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ...devices import processors
from ...evaluation.figures import mean_of
from ...evaluation.held_out import Figure
from ...evaluation.report.result import value
from ...training.recipe import StageConfig
from ..experiment import Experiment, Part
from ..rows import NONE, Outcome, Row, claim_row, other_row
from ..timing import (
    encode_seconds,
    few_images,
    fitting_seconds,
    flow_of,
    one_thread,
    step_seconds,
)
from ..work import Work

__all__ = ["COST", "HALF", "UNCHANGED"]

BASELINE, WEAKER, KINDS = "baseline-cifar10", "specialise-cifar-flow", "specialise-cifar"
ENCODE = "a pass through the weaker t-flow"
HALF = 0.6  # of the baseline's time: what "roughly half", or less, is taken to be
UNCHANGED = 1.25  # times as long: what "does not scale with the number of kinds" is taken to be
WHERE = "4.3"
RATIO = "of the baseline's time"


def _steps(work: Work) -> Outcome:
    """Seconds an image of a step: baseline, weaker t-flow, and one kind on it, frozen."""
    rounds, steps = work.settings.rounds, work.settings.timed_steps
    tick = work.task("timing steps", 3 * rounds)
    stages, data = {}, {}
    for run in (BASELINE, WEAKER, KINDS):
        stages[run] = work.recipe(run).stages[-1]
        data[run] = few_images(work.recipe(run), work.reporter)
    seconds: dict[str, list[float]] = {run: [] for run in (*stages, ENCODE)}
    with one_thread():
        for _ in range(rounds):  # in turn, so that a busy minute falls on all of them
            for run, stage in stages.items():
                found = step_seconds(
                    work.recipe(run),
                    data[run],
                    # Batches of one size: otherwise their sizes would be compared.
                    _alike(stage, stages[BASELINE]),
                    steps=steps,
                    device=work.device,
                    only="cifar10" if run == KINDS else None,
                )
                seconds[run].append(found)
                tick(1)
            batch = stages[BASELINE].batch
            passing = encode_seconds(
                work.recipe(WEAKER), data[WEAKER], device=work.device, batch=batch
            )
            seconds[ENCODE].append(passing)
    found = {run: torch.tensor(s, dtype=torch.float64) for run, s in seconds.items()}
    return Outcome(_step_rows(work, found))


def _alike(stage: StageConfig, baseline: StageConfig) -> StageConfig:
    return stage.model_copy(update={"batch": baseline.batch, "latent_draws": 1, "ema": 0.0})


def _step_rows(work: Work, seconds: dict[str, Tensor]) -> list[Row]:
    told = "images of CIFAR-10 and MNIST; steps of equal batches"
    kinds, flows = work.conditions(KINDS, BASELINE), work.conditions(WEAKER, BASELINE)
    clock = "seconds" if work.device.type == "cuda" else "CPU seconds"
    kind = mean_of((seconds[KINDS] + seconds[ENCODE]) / seconds[BASELINE], "kind", RATIO)
    kept = mean_of(seconds[KINDS] / seconds[BASELINE], "kept", RATIO)
    weaker = mean_of(seconds[WEAKER] / seconds[BASELINE], "weaker", RATIO)
    images = {
        run: sum(stage.steps * stage.batch for stage in work.recipe(run).stages)
        for run in (BASELINE, KINDS)
    }
    whole = mean_of(
        seconds[KINDS] * images[KINDS] / (seconds[BASELINE] * images[BASELINE]), "whole", RATIO
    )
    return [
        claim_row(
            f"a kind and a pass through its frozen t-flow take at most {HALF:g} of the baseline's "
            "time, an image",
            "roughly half the time",
            WHERE,
            clock,
            _below(kind, HALF),
            told,
            kinds,
            sized=True,  # of decoders as wide as the t-flow, or wider
            shown=f"{value(kind)} {RATIO}",
            also={"ratio": kind} | _each(seconds),
        ),
        other_row(
            "the same, latent states kept, as they are here",
            "roughly half the time",
            WHERE,
            clock,
            kept,
            told,
            "the paper keeps no latent states",
        ),
        other_row(
            "the same, of all images that the recipes show them",
            "roughly half the time",
            WHERE,
            clock,
            whole,
            told,
            "the paper does not say for how many steps it trained either",
        ),
        claim_row(
            "a t-flow of 20 steps a level is faster than one of 32, an image",
            "marginally faster",
            WHERE,
            clock,
            _below(weaker, 1.0),
            told,
            flows,
            sized=True,
            shown=f"{value(weaker)} {RATIO}",
            also={"ratio": weaker},
        ),
    ]


def _each(seconds: dict[str, Tensor]) -> dict[str, Figure]:
    return {run: mean_of(1000 * each, run, "ms an image") for run, each in seconds.items()}


def _below(ratio: Figure, most: float) -> Figure:
    """How far a ratio is below what it may be: positive where the claim is right."""
    return Figure(
        ratio.name, most - ratio.mean, ratio.standard_error, ratio.count, f"below {most:g}"
    )


def _parallel(work: Work) -> Outcome:
    """The clock for one kind by one process, and for two by two, in turn."""
    recipe = work.recipe(KINDS)
    what = "two kinds by two processes take the time of one kind by one"
    claim = "does not scale with the number of knowledge types"
    told = "images of CIFAR-10 and MNIST"
    if processors() < 2:
        none = Figure(what, float("nan"), float("nan"), 0, "of the time")
        return Outcome([other_row(what, claim, WHERE, "seconds", none, told, "one processor")])
    data = few_images(recipe, work.reporter)
    model = flow_of(recipe, data)
    stage = recipe.stages[-1].model_copy(update={"latent_draws": 1})
    names = [source.knowledge for source in recipe.data.sources]
    tick = work.task("timing processes", 3 * work.settings.rounds + 1)
    steps = 4 * work.settings.timed_steps
    with tempfile.TemporaryDirectory() as folder:

        def seconds(kinds: list[str], workers: int, count: int = steps) -> float:
            spent = fitting_seconds(
                model,
                data,
                recipe,
                stage,
                kinds,
                steps=count,
                workers=workers,
                folder=Path(folder, "fit"),
            )
            tick(1)
            return spent

        seconds(names, 2, 1)  # the server that processes come from starts with the first
        found = torch.tensor(
            [
                [seconds(names[:1], 1), seconds(names, 2), seconds(names, 1)]
                for _ in range(work.settings.rounds)
            ]
        )
    one, parallel, serial = found.double().unbind(1)
    ratio = mean_of(parallel / one, "two by two", "of the time of one by one")
    control = mean_of(serial / one, "two by one", ratio.unit)
    return Outcome(
        [
            claim_row(
                f"{what}, to within {UNCHANGED - 1:.0%}",
                claim,
                WHERE,
                "seconds on the clock",
                _below(ratio, UNCHANGED),
                told,
                work.conditions(KINDS),
                shown=f"{value(ratio)} {ratio.unit}",
                also={"ratio": ratio},
            ),
            other_row(
                "two kinds by one process, for which that would not hold",
                NONE,
                WHERE,
                "seconds on the clock",
                control,
                told,
                "the paper does not time it",
            ),
        ],
        notes=[
            "Times of processes are of the clock, and mean something on a machine with two free "
            "processors only."
        ],
    )


COST = Experiment(
    name="cost",
    title="What kinds cost",
    section="4.3",
    about=(
        "The paper says that training its conditional models takes roughly half the time of the "
        "baseline t-flow, that they can be trained in parallel, so that the time does not scale "
        "with their number, and that a t-flow of 20 steps is marginally faster than one of 32. "
        "It does not give the lengths of its trainings, so what is compared is the time that an "
        "image takes in a step, on new models, timed in turn."
    ),
    runs=(),
    parts=(
        Part("steps", (), _steps),
        Part("parallel", (), _parallel),
    ),
    recipes=(BASELINE, WEAKER, KINDS),
)
