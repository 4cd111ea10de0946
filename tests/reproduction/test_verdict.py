"""The rule, on either side of each of its bounds."""

from __future__ import annotations

import math

import pytest

from tzk_core.evaluation.held_out import Figure
from tzk_core.evaluation.likelihoods import Likelihood
from tzk_core.reproduction.paper import BITS, SAID, SHARE, Said
from tzk_core.reproduction.rows import cells, likelihood_row
from tzk_core.reproduction.verdict import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Conditions,
    claim_verdict,
    figure_verdict,
)

SAID_BITS = Said(2.0, BITS, "4", "prior")
SAID_SHARE = Said(0.8, SHARE, "4", "")
SMALLER = Conditions(smaller=("a t-flow of 1 step",))


def figure(mean: float, error: float = 0.0, unit: str = "bits/dim on D = 3072") -> Figure:
    return Figure("x", mean, error, 100, unit)


def one(mean: float, error: float = 0.0) -> dict[str, Figure]:
    return {"bits/dim on D = 3072": figure(mean, error)}


@pytest.mark.parametrize(
    ("mean", "error", "word"),
    [
        (1.5, 0.0, REPRODUCED),
        (2.0, 0.0, REPRODUCED),
        (2.049, 0.0, REPRODUCED),
        (2.051, 0.0, NOT_REPRODUCED),
        # What is less well known must be better.
        (2.02, 0.01, REPRODUCED),
        (2.04, 0.01, NOT_REPRODUCED),
        (1.94, 0.05, REPRODUCED),
        (1.96, 0.05, NOT_REPRODUCED),
        (2.06, math.nan, NOT_REPRODUCED),
        (math.nan, 0.0, NOT_REPRODUCED),
        (math.inf, 0.0, NOT_REPRODUCED),
    ],
)
def test_bits_of_the_papers_model(mean, error, word):
    assert figure_verdict(SAID_BITS, one(mean, error), Conditions()).word == word


@pytest.mark.parametrize(
    ("mean", "word"), [(0.95, REPRODUCED), (0.781, REPRODUCED), (0.779, NOT_REPRODUCED)]
)
def test_shares_are_better_when_higher(mean, word):
    assert figure_verdict(SAID_SHARE, {SHARE: figure(mean)}, Conditions()).word == word


def test_a_smaller_model_that_is_worse_says_nothing_and_one_that_is_as_good_does():
    worse = figure_verdict(SAID_BITS, one(2.5), SMALLER)
    assert str(worse) == "not comparable: 0.50 bits/dim worse, but smaller"
    better = figure_verdict(SAID_BITS, one(1.9), SMALLER)
    assert str(better) == "reproduced: 0.10 bits/dim better, although smaller"


def test_stand_ins():
    trained = Conditions(replaced=("SVHN",))
    # Whatever the figure is: what else a t-flow learned changes its likelihoods.
    for mean in (1.0, 3.0):
        verdict = figure_verdict(SAID_BITS, one(mean), trained)
        assert str(verdict) == "not comparable: stand-ins for SVHN in training"
    reached = figure_verdict(SAID_SHARE, {SHARE: figure(0.9)}, trained)
    assert reached.word == REPRODUCED
    assert "stand-ins" in reached.why
    assert figure_verdict(SAID_SHARE, {SHARE: figure(0.5)}, trained).word == NOT_COMPARABLE
    tested = figure_verdict(SAID_SHARE, {SHARE: figure(0.9)}, Conditions(tested=("MNIST",)))
    assert str(tested) == "not comparable: test images stand in for MNIST"


def test_two_conventions_of_d():
    def ours(on_d: float, native: float) -> dict[str, Figure]:
        return one(on_d) | {"bits/dim on native D = 784": figure(native)}

    assert figure_verdict(SAID_BITS, ours(1.0, 1.9), Conditions()).word == REPRODUCED
    split = figure_verdict(SAID_BITS, ours(1.0, 3.9), Conditions())
    assert str(split) == (
        "not comparable: the paper does not say on which D: reached on D = 3072, not on native "
        "D = 784"
    )
    assert figure_verdict(SAID_BITS, ours(2.5, 9.0), Conditions()).word == NOT_REPRODUCED


@pytest.mark.parametrize(
    ("mean", "error", "word", "why"),
    [
        (0.1, 0.04, REPRODUCED, ""),
        (0.1, 0.06, NOT_REPRODUCED, "within two standard errors"),
        (-0.1, 0.06, NOT_REPRODUCED, "within two standard errors"),
        (-0.1, 0.04, NOT_REPRODUCED, "it is the other way round"),
        (0.0, 0.0, NOT_REPRODUCED, "within two standard errors"),
        (0.1, math.nan, NOT_COMPARABLE, "measured once: there is no standard error"),
        (math.nan, 0.1, NOT_REPRODUCED, "ours is not finite"),
    ],
)
def test_claims(mean, error, word, why):
    verdict = claim_verdict(figure(mean, error), Conditions())
    assert (verdict.word, verdict.why) == (word, why)


def test_a_claim_of_smaller_models_counts_and_says_so():
    verdict = claim_verdict(figure(0.1, 0.01), SMALLER | Conditions(replaced=("CelebA",)))
    assert str(verdict) == "reproduced: smaller, with stand-ins in training"


@pytest.mark.parametrize(("mean", "why"), [(0.1, "so it is here"), (-0.1, "it is the other way")])
def test_a_claim_that_depends_on_size_is_not_comparable_of_smaller_models(mean, why):
    verdict = claim_verdict(figure(mean, 0.01), SMALLER, sized=True)
    assert verdict.word == NOT_COMPARABLE
    assert verdict.why.startswith(why)
    full = claim_verdict(figure(mean, 0.01), Conditions(), sized=True)
    assert full == claim_verdict(figure(mean, 0.01), Conditions())


def likelihood(estimator: str, draws: int | None = None) -> Likelihood:
    native = figure(4.0, 0.1, "bits/dim on native D = 784")
    return Likelihood("p(t|mnist)", estimator, draws, figure(1.0), figure(1.02, 0.01), native, None)


def test_rows_compare_the_papers_estimator_and_no_other():
    said = SAID["specialise-multi mnist"]
    same = likelihood_row("w", said, likelihood("reconstruction"), "d", Conditions())
    assert same.verdict.why.startswith("the paper does not say on which D")
    other = likelihood_row("w", said, likelihood("importance", 256), "d", Conditions())
    assert str(other.verdict) == (
        "not comparable: the paper's figure is of the kind reconstruction"
    )
    assert cells(other) == [
        "w",
        "1.02",
        "4.3, Fig. 7, Table 2",
        "importance, N = 256",
        "1.020 ± 0.010 (D = 3072)",
        "4.000 ± 0.100 (native D = 784)",
        "d",
        str(other.verdict),
    ]
    none = likelihood_row("w", None, likelihood("prior"), "d", Conditions())
    assert str(none.verdict) == "not comparable: the paper gives no figure"
