"""Which kinds of knowledge apply to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tzk_core.data.preparation import Prepared
from tzk_core.errors import InvalidRequest, TzkError
from tzk_core.randomness import Rows
from tzk_core.service.answers import Existence, PosteriorAnswer, Reasons, finite
from tzk_core.service.isolation import attempted, in_groups
from tzk_core.service.paths import must_know
from tzk_core.service.pictures import prepared, stacked
from tzk_core.service.requests import PosteriorRequest
from tzk_core.service.seeds import noisy, parts, seed_of

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Judged", "posterior"]

NO_DECODER = "it was not asked for; send decoder_draws 256"


@dataclass(frozen=True)
class Judged:
    """What one image's request gave, with what the answer's body has no place for."""

    answer: PosteriorAnswer
    seed: int
    notes: list[str]


@dataclass(frozen=True)
class _Work:
    picture: Prepared
    knowledge: tuple[str, ...]
    draws: int
    decoder_draws: int
    seed: int


def posterior(
    model: TzK, requests: Sequence[PosteriorRequest | TzkError]
) -> list[Judged | TzkError]:
    """What holds for each request's image, or its error, in order."""

    def prepare(asked: PosteriorRequest) -> _Work:
        picture = prepared(asked.image, model.preparation, "/image")
        return _Work(
            picture, _paths(model, asked), asked.draws, asked.decoder_draws, seed_of(asked.seed)
        )

    return in_groups(
        attempted(prepare, requests),
        key=lambda work: (work.knowledge, work.draws, work.decoder_draws),
        call=lambda group: _judge(model, group),
    )


def _paths(model: TzK, asked: PosteriorRequest) -> tuple[str, ...]:
    """The paths to answer for: those named, or given and what lies below it, or all."""
    if asked.knowledge is not None:
        if asked.given is not None:
            raise InvalidRequest("send given or knowledge, not both", pointer="/knowledge")
        for path in asked.knowledge:
            must_know(model, path, "/knowledge")
        return tuple(dict.fromkeys(asked.knowledge))
    if asked.given is None:
        return tuple(model.paths())
    must_know(model, asked.given, "/given")
    below = asked.given + "/"
    return tuple(path for path in model.paths() if f"{path}/".startswith(below))


def _judge(model: TzK, group: list[_Work]) -> list[Judged]:
    rows = Rows(work.seed for work in group)
    t = noisy(model, stacked([work.picture for work in group]), rows)
    paths = group[0].knowledge
    columns: dict[str, list] = {path: [] for path in paths}
    if paths:
        for part in parts(len(t)):
            judged = model.posterior(
                t[part],
                knowledge=list(paths),
                draws=group[0].draws,
                decoder_draws=group[0].decoder_draws,
                generator=rows[part],
            )
            for path in paths:
                columns[path].append(judged[path])
    answers: list[PosteriorAnswer] = [{} for _ in group]
    for path, pieces in columns.items():
        for answer, existence in zip(answers, _existences(pieces), strict=True):
            answer[path] = existence
    return [
        Judged(answer, work.seed, work.picture.notes)
        for answer, work in zip(answers, group, strict=True)
    ]


def _existences(pieces: list) -> list[Existence]:
    """One knowledge's figures for every image of the batch."""

    def column(name: str) -> list[float] | None:
        values = [getattr(piece, name) for piece in pieces]
        return None if None in values else torch.cat(values).double().tolist()

    encoder, decoder = column("encoder"), column("decoder")
    logit, joint = column("logit"), column("joint")
    normalised = column("normalised")
    existences = []
    for i, probability in enumerate(encoder):
        reasons: Reasons = {} if decoder else {"decoder": NO_DECODER}
        existences.append(
            Existence(
                encoder=finite(probability, "encoder", reasons),
                decoder=finite(decoder[i], "decoder", reasons) if decoder else None,
                logit=finite(logit[i], "logit", reasons),
                joint=finite(joint[i], "joint", reasons),
                normalised=finite(normalised[i], "normalised", reasons) if normalised else None,
                reasons=reasons,
            )
        )
    return existences
