"""How likely an image is, and how that compares with held-out ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tzk_core.data.preparation import Prepared
from tzk_core.data.quantisation import bits_per_dim, nll_nats
from tzk_core.densities import log_mean_exp
from tzk_core.errors import TzkError
from tzk_core.randomness import Rows
from tzk_core.service.answers import NllAnswer, Reasons, finite
from tzk_core.service.isolation import attempted, in_groups
from tzk_core.service.paths import must_know
from tzk_core.service.pictures import prepared, stacked
from tzk_core.service.requests import NllRequest
from tzk_core.service.seeds import noisy, parts, seed_of
from tzk_core.service.usual import usual
from tzk_core.typicality import Typicality
from tzk_core.typicality_statistics import Levels, forward, statistics

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["score"]

DRAWS_GIVEN, DRAWS_PRIOR = 16, 1

NO_HELD_OUT = "no log p of held-out images is stored in this model"


@dataclass(frozen=True)
class _Work:
    picture: Prepared
    given: str | None
    draws: int
    seed: int


def score(model: TzK, requests: Sequence[NllRequest | TzkError]) -> list[NllAnswer | TzkError]:
    """One answer, or error, for each request, in order."""

    def prepare(asked: NllRequest) -> _Work:
        if asked.given is not None:
            must_know(model, asked.given, "/given")
        default = DRAWS_PRIOR if asked.given is None else DRAWS_GIVEN
        picture = prepared(asked.image, model.preparation, "/image")
        return _Work(picture, asked.given, asked.draws or default, seed_of(asked.seed))

    return in_groups(
        attempted(prepare, requests),
        key=lambda work: (work.given, work.draws),
        call=lambda group: _score(model, group),
        kinds=lambda work: work.given is not None,
    )


def _score(model: TzK, group: list[_Work]) -> list[NllAnswer]:
    """Answers for requests that share the knowledge given and the number of draws."""
    given, draws = group[0].given, group[0].draws
    rows = Rows(work.seed for work in group)
    pixels = stacked([work.picture for work in group])
    t = noisy(model, pixels, rows)
    passed = [forward(model, t[part]).on_cpu() for part in parts(len(t))]
    log_prior = torch.cat([levels.log_prob for levels in passed])
    if given is not None:
        distribution = model.given(given)
        log_prob = torch.cat(
            [distribution.log_prob(t[p], draws=draws, generator=rows[p]) for p in parts(len(t))]
        ).cpu()
    elif draws > 1:
        # The first draw is the one of draws = 1; likelihoods are averaged, not their logs.
        more = [_log_prob(model, noisy(model, pixels, rows)) for _ in range(draws - 1)]
        log_prob = log_mean_exp(torch.stack([log_prior, *more], 1), 1)
    else:
        log_prob = log_prior
    held_out, typicality = usual(model)
    if isinstance(typicality, Typicality):
        tails = typicality.tail(statistics(Levels(*map(torch.cat, zip(*passed))), pixels)).tolist()
    else:
        tails = [typicality] * len(group)
    return [
        _answer(work, p.item(), p_prior.item(), tail, held_out)
        for work, p, p_prior, tail in zip(
            group, log_prob.double(), log_prior.double(), tails, strict=True
        )
    ]


def _log_prob(model: TzK, t: Tensor) -> Tensor:
    return torch.cat([model.prior.log_prob(t[part]) for part in parts(len(t))]).double().cpu()


def _answer(
    work: _Work, log_prob: float, log_prior: float, tail: float | str, held_out: list[float]
) -> NllAnswer:
    """``tail`` is the typicality, or why there is none."""
    reasons: Reasons = {}
    typicality = None
    if isinstance(tail, str):
        reasons["typicality"] = tail
    else:
        typicality = finite(tail, "typicality", reasons)
    dims, native = work.picture.pixels.size, work.picture.native_dims
    nats = nll_nats(log_prob, dims)
    percentile = None
    if not held_out:
        reasons["percentile"] = NO_HELD_OUT
    elif finite(log_prior, "percentile", reasons) is not None:
        percentile = 100 * bisect_right(held_out, log_prior) / len(held_out)
    return NllAnswer(
        nll_nats=finite(nats, "nll_nats", reasons),
        bits_per_dim=finite(bits_per_dim(nats, dims), "bits_per_dim", reasons),
        bits_per_dim_native=finite(bits_per_dim(nats, native), "bits_per_dim_native", reasons),
        typicality=typicality,
        percentile=percentile,
        given=work.given,
        estimator="prior" if work.given is None else "importance",
        draws=work.draws,
        seed=work.seed,
        dims=dims,
        dims_native=native,
        notes=work.picture.notes,
        reasons=reasons,
    )
