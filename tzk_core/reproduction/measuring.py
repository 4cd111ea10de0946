"""Likelihoods of test images under a run: the rows that the parts of experiments share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..evaluation.figures import mean_of
from ..evaluation.held_out import Figure
from ..evaluation.information import code_information
from ..evaluation.likelihoods import Measured, likelihood_rows, measure_rows
from .paper import BITS, Said
from .rows import NONE, Row, claim_row, likelihood_row, other_row
from .verdict import NOT_COMPARABLE, Verdict
from .work import Work

__all__ = ["Prior", "against_baseline", "compared", "kind_rows", "prior_of", "prior_row"]

UNUSED = 0.1
"""Nats of I(c; t), below which a code counts as unused; a code that is used has several."""

_TAGS = ["prior", "root", "child", "class"]  # of rows, in the order in which they are shown


@dataclass(frozen=True)
class Prior:
    """p(t) of test images under a run."""

    found: Measured
    dims: int

    @property
    def bits(self) -> Tensor:
        """−log p(t) of each image, bits/dim on D of the density of t, float64 (N,).

        Differences between these are those of the 256-level images' bits/dim.
        """
        return -self.found.log_prob / (self.dims * math.log(2))


def prior_of(work: Work, run: str, data: str, images: int | None = None) -> Prior:
    """p(t) of a data set's test images: the same images and noise for every run of one shape.

    Args:
        images: as many; those of the settings by default.
    """
    model = work.model(run)
    source = work.test(run, data, images or work.settings.prior_images)
    asked = likelihood_rows(model, None, [], len(source.test))
    tick = work.task(f"p(t) of {data}", len(source.test))
    native = torch.from_numpy(source.test.native_dims)
    [found] = measure_rows(model, asked, source.pixels, native, seed=work.measuring_seed, tick=tick)
    return Prior(found, math.prod(model.observation_shape))


def prior_row(work: Work, run: str, data: str, said: Said | None, what: str) -> tuple[Row, Prior]:
    """The row of p(t), and what it was made of."""
    prior = prior_of(work, run, data)
    told = work.told_of(run, data)
    conditions = work.conditions(run, test=[data])
    return likelihood_row(what, said, prior.found.row, told, conditions), prior


def kind_rows(
    work: Work,
    run: str,
    data: str,
    said: Said | None,
    *,
    kind: str,
    where: str,
    own: list[tuple[str, Tensor]] | None = None,
    claim: str | None = None,
    gains: bool = True,
) -> tuple[list[Row], list[Measured]]:
    """Rows of p(t | kind) on a data set's test images by every estimator, and of p(t) there.

    Then by how much the kind is better than p(t), first by the paper's own estimator, then by a
    likelihood: the importance bound must beat p(t) by more than −log p(e = 1), which any kind that
    is consistent with p(t) gains for nothing. And I(c; t), how much the code tells of the image.

    Args:
        kind: the root kind that all of the images have.
        where: the claim stands in the paper.
        own: (path of a class, index of the images that have it), which adds rows of p(t | class).
        claim: what the paper says of the kind and its own t-flow; None where it compares it with
            no p(t), so that the gain has no verdict.
        gains: whether the two rows of the gain are wanted.
    """
    model = work.model(run)
    source = work.test(run, data, work.settings.images)
    asked = likelihood_rows(model, kind, own or [], len(source.test), draws=work.settings.draws)
    tick = work.task(f"p(t|{kind}) of {data}", sum(row.images for row in asked))
    native = torch.from_numpy(source.test.native_dims)
    found = measure_rows(model, asked, source.pixels, native, seed=work.measuring_seed, tick=tick)
    told, conditions = work.told_of(run, data), work.conditions(run, test=[data])
    rows = []
    # The paper's estimator first, a likelihood beside it.
    order = {"prior": 0, "reconstruction": 1, "importance": 2}
    each = sorted(
        zip(asked, found, strict=True),
        key=lambda pair: (_TAGS.index(pair[0].tag), order[pair[0].estimator]),
    )
    for ask, one in each:
        own_said = said if ask.tag == "root" else None
        what = f"{ask.distribution} of {data}"
        if ask.tag == "prior":
            what += ", the same images as below"
        rows.append(likelihood_row(what, own_said, one.row, told, conditions))
    tells = code_information(model, kind, source.pixels, seed=work.measuring_seed).information
    if gains:
        each = _gains(work, run, data, claim, kind, where, found)
        rows += [_of_unused_code(row, tells) for row in each]
    why = "the paper gives no figure"
    rows.append(other_row(f"I(c; t) of the code of {kind}", NONE, NONE, NONE, tells, told, why))
    return rows, found


def _of_unused_code(row: Row, tells: Figure) -> Row:
    """The row, its verdict saying so where the code tells nothing of the image.

    What such a kind gains is its z-flow's, which any kind has.
    """
    if tells.mean >= UNUSED or row.verdict.word == NOT_COMPARABLE:
        return row
    why = f"{row.verdict.why}, but its code is unused: the gain is its z-flow's"
    return replace(row, verdict=Verdict(row.verdict.word, why.removeprefix(", ")))


def against_baseline(
    work: Work, run: str, data: str, found: list[Measured], baseline: str, claim: str, where: str
) -> list[Row]:
    """That a kind is better than p(t) of a larger t-flow of its data set alone.

    Args:
        found: what :func:`kind_rows` measured, of images of the baseline's own shape.
        baseline: its run.
    """
    prior = prior_of(work, baseline, data, work.settings.images)
    told = work.told_of(run, data)
    conditions = work.conditions(run, baseline, test=[data])
    rows = []
    for each in compared(found, data, work):
        gain = _gain(each.log_prob, prior.found.log_prob, 0.0, prior.dims)
        what = f"p(t|{data}) better than p(t) of {baseline} on {data}"
        estimator = _estimator(each)
        rows.append(claim_row(what, claim, where, estimator, gain, told, conditions, sized=True))
    return rows


def compared(found: list[Measured], kind: str, work: Work) -> list[Measured]:
    """p(t | kind) by reconstruction, then by the importance bound of most draws."""
    wanted = (None, max(work.settings.draws))
    own = [m for m in found if m.row.distribution == f"p(t|{kind})" and m.row.draws in wanted]
    return sorted(own, key=lambda m: m.row.draws or 0)


def _estimator(found: Measured) -> str:
    draws = found.row.draws
    return f"importance, N = {draws}" if draws else found.row.estimator


def _gains(
    work: Work,
    run: str,
    data: str,
    claim: str | None,
    kind: str,
    where: str,
    found: list[Measured],
) -> list[Row]:
    """By how much a kind is better than p(t): by reconstruction, then by the importance bound."""
    model, told = work.model(run), work.told_of(run, data)
    dims, rows = math.prod(model.observation_shape), []
    prior = found[0]
    for each in compared(found, kind, work):
        what, credit = f"p(t|{kind}) better than p(t) on {data}", 0.0
        if each.row.draws:
            credit = -math.log(float(model.find(kind).existence))
            what += " by more than −log p(e = 1)"
        gain = _gain(each.log_prob, prior.log_prob, credit, dims)
        estimator = _estimator(each)
        if claim is None:
            why = "the paper does not compare the kind with its own t-flow"
            rows.append(other_row(what, NONE, NONE, estimator, gain, told, why, places=4))
        else:
            conditions = work.conditions(run, test=[data])
            rows.append(claim_row(what, claim, where, estimator, gain, told, conditions))
    return rows


def _gain(log_p: Tensor, log_prior: Tensor, credit: float, dims: int) -> Figure:
    """By how much a conditional is better, bits/dim on D, paired by image."""
    gain = (log_p - log_prior - credit) / (dims * math.log(2))
    return mean_of(gain, "gain", f"{BITS} on D = {dims}")
