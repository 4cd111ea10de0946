"""The sign of every difference that an experiment tells: positive where the paper is right."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from tzk_core.evaluation.held_out import Figure
from tzk_core.evaluation.likelihoods import Likelihood, Measured
from tzk_core.reproduction import measuring
from tzk_core.reproduction.experiments import cost, end_to_end, interpolation, multi_data
from tzk_core.reproduction.measuring import Prior, against_baseline
from tzk_core.reproduction.rows import NONE, Row
from tzk_core.reproduction.verdict import Conditions, not_comparable

DIMS, IMAGES = 4, 50
NOISE = torch.linspace(-0.01, 0.01, IMAGES, dtype=torch.float64)


def measured(bits: float, distribution: str = "p(t)", draws: int | None = None) -> Measured:
    """Images of about so many bits/dim, of the density of t."""
    log_prob = -(bits + NOISE) * DIMS * math.log(2)
    figure = Figure("bits", bits, 0.001, IMAGES, f"bits/dim on D = {DIMS}")
    estimator = "importance" if draws else "prior"
    row = Likelihood(distribution, estimator, draws, figure, figure, figure, None)
    return Measured(row, log_prob)


@pytest.fixture
def work():
    """What the parts ask of an experiment at work, without runs."""
    return SimpleNamespace(
        settings=SimpleNamespace(draws=(16,), images=IMAGES),
        told_of=lambda *names: "data",
        told=lambda *names: "data",
        conditions=lambda *runs, test=(): Conditions(),
        data=SimpleNamespace(source=lambda name: name),
        model=lambda run: SimpleNamespace(observation_shape=(1, 2, 2)),
        device=torch.device("cpu"),
        recipe=lambda run: SimpleNamespace(stages=[SimpleNamespace(steps=1, batch=1)]),
    )


def row_of(what: str) -> Row:
    return Row(what, NONE, NONE, NONE, NONE, NONE, NONE, not_comparable("a stub"))


def priors(bits: dict[str, float]):
    """`prior_of` and `prior_row` of runs with such bits/dim."""

    def prior_of(work, run, data, images=None) -> Prior:
        return Prior(measured(bits[run]), DIMS)

    def prior_row(work, run, data, said, what):
        return row_of(what), prior_of(work, run, data)

    return prior_of, prior_row


@pytest.mark.parametrize(("together", "word"), [(2.5, "reproduced"), (1.5, "not reproduced")])
def test_several_data_sets_are_said_to_be_worse_than_one(work, monkeypatch, together, word):
    prior_of, prior_row = priors({"multi-data": together, "baseline-cifar10": 2.0})
    monkeypatch.setattr(multi_data, "prior_of", prior_of)
    monkeypatch.setattr(multi_data, "prior_row", prior_row)
    monkeypatch.setattr(multi_data, "samples", lambda *_: None)
    monkeypatch.setattr(multi_data, "learning_curve", lambda *_: None)
    part = multi_data.MULTI_DATA.parts[0]
    claim = part.measure(work).rows[1]
    assert claim.verdict.word == word
    assert claim.figures["difference"].mean == pytest.approx(together - 2.0)


@pytest.mark.parametrize(
    ("together", "word"), [(1.5, "reproduced"), (2.02, "reproduced"), (2.1, "not reproduced")]
)
def test_together_is_said_to_be_no_worse_than_two_phases(work, monkeypatch, together, word):
    bits = {"end-to-end": together, "specialise-multi": 2.0}

    def kind_rows(work, run, data, said, **_):
        return [], [measured(bits[run], f"p(t|{data})", draws=16)]

    monkeypatch.setattr(end_to_end, "kind_rows", kind_rows)
    monkeypatch.setattr(end_to_end, "samples", lambda *_: None)
    part = next(part for part in end_to_end.END_TO_END.parts if part.name == "mnist")
    [claim] = part.measure(work).rows
    assert claim.verdict.word == word
    better = "-" if together > 2 else ""
    assert claim.ours.startswith(f"{better}{abs(2.0 - together):.4f} ±")


def test_the_t_flow_trained_together_is_compared_as_it_is_said(work, monkeypatch):
    prior_of, prior_row = priors({"end-to-end": 1.5, "specialise-multi": 2.0})
    for name, stub in (("prior_of", prior_of), ("prior_row", prior_row)):
        monkeypatch.setattr(end_to_end, name, stub)
    for name in ("samples", "learning_curve", "_shown_to"):
        monkeypatch.setattr(end_to_end, name, lambda *_: "told")
    rows = end_to_end.END_TO_END.parts[0].measure(work).rows
    assert [row.what.endswith("trained alone") for row in rows] == [False, True] * 2
    assert rows[1].ours.startswith("0.5000 ±")


@pytest.mark.parametrize(("kind", "word"), [(1.5, "reproduced"), (2.5, "not reproduced")])
def test_a_kind_is_said_to_be_better_than_the_baseline(work, monkeypatch, kind, word):
    prior_of, _ = priors({"baseline-mnist": 2.0})
    monkeypatch.setattr(measuring, "prior_of", prior_of)
    found = [measured(kind, "p(t|mnist)", draws=16)]
    [row] = against_baseline(work, "run", "mnist", found, "baseline-mnist", "better", "4.3")
    assert row.verdict.word == word
    assert row.figures["difference"].mean == pytest.approx(2.0 - kind)


def test_a_kind_has_to_be_better_by_more_than_its_credit(work, monkeypatch):
    """The importance bound against p(t)/p(e = 1); reconstruction against p(t) alone."""
    existence = 0.25
    model = SimpleNamespace(
        observation_shape=(1, 2, 2), find=lambda kind: SimpleNamespace(existence=existence)
    )
    work.model = lambda run: model
    kinds = [measured(1.8, "p(t|mnist)"), measured(1.8, "p(t|mnist)", draws=16)]
    found = [measured(2.0), *kinds]
    rows = measuring._gains(work, "run", "mnist", "better", "mnist", "4.3", found)
    credit = -math.log2(existence) / DIMS  # bits/dim: 0.5, more than the 0.2 of the gain
    gains = [row.figures["difference"].mean for row in rows]
    assert gains == pytest.approx([0.2, 0.2 - credit])
    assert [row.verdict.word for row in rows] == ["reproduced", "not reproduced"]


def test_a_way_that_falls_between_its_ends_is_no_good_one(work):
    holds = torch.tensor([[2.0, 1.5, 2.0]], dtype=torch.float64).repeat(400, 1)
    falls = torch.tensor([[2.0, 2.5, 2.0]], dtype=torch.float64).repeat(400, 1)
    for several, word in ((holds, "reproduced"), (falls, "not reproduced")):
        grey = torch.zeros(400, 3, dtype=torch.float64)
        found = {
            interpolation.ALONE: interpolation.Ways(holds, grey, DIMS),
            interpolation.SEVERAL: interpolation.Ways(several, grey, DIMS),
        }
        rows = interpolation._rows(work, found)
        assert rows[1].verdict.word == word
        deeper = next(f for f in rows[2].figures.values() if f.name == "deeper")
        assert deeper.mean == pytest.approx(0.0 if several is holds else 1.0)


@pytest.mark.parametrize(("middle", "word"), [(60.0, "reproduced"), (40.0, "not reproduced")])
def test_less_dark_between_is_better(work, middle, word):
    bits = torch.zeros(400, 3, dtype=torch.float64)

    def way(between: float) -> interpolation.Ways:
        grey = torch.tensor([[80.0, between, 90.0]], dtype=torch.float64).repeat(400, 1)
        return interpolation.Ways(bits, grey, DIMS)

    found = {interpolation.ALONE: way(50.0), interpolation.SEVERAL: way(middle)}
    row = interpolation._dark_row(work, found)
    assert row.verdict.word == word
    assert row.ours.startswith(f"{80 - middle:.1f} ± 0.0 against 30.0")


def test_what_takes_less_of_the_time_is_said_to_be_cheaper(work):
    seconds = {
        cost.BASELINE: torch.tensor([10.0, 10.1, 9.9, 10.0, 10.0]),
        cost.WEAKER: torch.tensor([8.0, 8.1, 7.9, 8.0, 8.0]),
        cost.KINDS: torch.tensor([2.0, 2.1, 1.9, 2.0, 2.0]),
        cost.ENCODE: torch.tensor([1.0, 1.1, 0.9, 1.0, 1.0]),
    }
    cheap = cost._step_rows(work, {name: each.double() for name, each in seconds.items()})
    assert [row.verdict.word for row in cheap if "difference" in row.figures] == ["reproduced"] * 2
    dear = seconds | {cost.KINDS: 4 * seconds[cost.KINDS], cost.WEAKER: 2 * seconds[cost.WEAKER]}
    rows = cost._step_rows(work, {name: each.double() for name, each in dear.items()})
    words = [row.verdict.word for row in rows if "difference" in row.figures]
    assert words == ["not reproduced"] * 2
