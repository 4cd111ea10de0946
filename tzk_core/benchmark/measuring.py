"""Requests, how long their answers take, and how far apart the answers are."""

from __future__ import annotations

import io
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tzk_core.data.decoding import encode_png
from tzk_core.errors import WorkFailed
from tzk_core.service.wire import RawAnswer, RawRequest

from .cases import Case
from .variants import Ready

__all__ = ["Apart", "Timing", "apart", "checked", "first_requests", "requests", "timed"]

ROUNDS = 5
FIRST = 10
IMAGES, SEED, TEMPERATURE = 16, 1, 0.7

# How far answers of two backends may be apart: design, section 8, and tests/export. The absolute
# one is of probabilities too.
MOST_RELATIVE, MOST_ABSOLUTE = 1e-5, 1e-4
MOST_LEVELS, MOST_PIXELS = 1, 1e-3


@dataclass
class Timing:
    """Seconds of calls of one backend, round by round."""

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(itertools.chain.from_iterable(self.rounds))

    def times_as_fast(self, other: Timing) -> float:
        """The median of the rounds' ratios, as what slows the machine down slows both."""
        return statistics.median(
            statistics.median(theirs) / statistics.median(mine)
            for mine, theirs in zip(self.rounds, other.rounds, strict=True)
        )


@dataclass(frozen=True)
class Apart:
    """How far answers are from those they are compared with.

    Args:
        nats: the largest difference of log p, or of log-odds, where those were asked for.
        levels, pixels: the largest difference of an image's element and the share of those that
            differ, where images were asked for.
        agrees: whether that is within the tolerance.
    """

    nats: float | None
    levels: int | None
    pixels: float | None
    agrees: bool


def requests(like: Ready) -> dict[Case, list[RawRequest]]:
    """Requests of each case, of pictures that the model itself drew: what it is used for."""
    fields = {"n": str(IMAGES), "seed": str(SEED), "temperature": str(TEMPERATURE), "format": "npy"}
    [drawn] = checked(like, "tzk_sample", [RawRequest(fields=_bytes(fields))])
    pictures = [encode_png(one) for one in np.load(io.BytesIO(drawn.body), allow_pickle=False)]
    seeds = [{"seed": str(SEED + number)} for number in range(IMAGES)]
    return {
        case: [
            RawRequest(fields=_asked(case, seed, picture))
            for seed, picture in zip(seeds, pictures, strict=True)
        ]
        for case in like.cases
    }


def checked(ready: Ready, endpoint: str, raws: Sequence[RawRequest]) -> list[RawAnswer]:
    """The answers.

    Raises:
        WorkFailed: one is an error.
    """
    answers = ready.answer(endpoint, raws)
    for answer in answers:
        if answer.status != 200:
            detail = json.loads(answer.body).get("detail", "")
            raise WorkFailed(f"{endpoint} answers {answer.status}: {detail}")
    return answers


def first_requests(ready: Ready, endpoint: str, raws: Sequence[RawRequest]) -> list[float]:
    """Seconds of each of the first ten requests, one at a time."""
    turn = itertools.cycle(raws)
    return [_seconds(ready, endpoint, [next(turn)]) for _ in range(FIRST)]


def timed(
    variants: Sequence[Ready], endpoint: str, raws: Sequence[RawRequest], batch: int, seconds: float
) -> dict[str, Timing]:
    """Calls of ``batch`` requests at once, the variants in turn, in an order that rotates.

    Args:
        seconds: of each variant, all rounds together; a round has one call at least.
    """
    turns = {one.name: itertools.cycle(raws) for one in variants}
    found = {one.name: Timing() for one in variants}
    for number in range(ROUNDS):
        turn = number % len(variants)
        for one in [*variants[turn:], *variants[:turn]]:
            calls: list[float] = []
            while not calls or sum(calls) < seconds / ROUNDS:
                group = list(itertools.islice(turns[one.name], batch))
                calls.append(_seconds(one, endpoint, group))
            found[one.name].rounds.append(calls)
    return found


def apart(endpoint: str, got: Sequence[RawAnswer], wanted: Sequence[RawAnswer]) -> Apart:
    """How far answers to the same requests are apart."""
    pairs = list(zip(got, wanted, strict=True))
    if endpoint in _FIGURES:
        nats, others = _FIGURES[endpoint]
        far = max((abs(a - b) for a, b in _known(pairs, nats)), default=None)
        return Apart(far, None, None, all(_near(pairs, name) for name in (nats, *others)))
    levels = np.stack([np.abs(_levels(one) - _levels(other)) for one, other in pairs])
    most, share = int(levels.max()), float((levels > 0).mean())
    return Apart(None, most, share, most <= MOST_LEVELS and share <= MOST_PIXELS)


def _seconds(ready: Ready, endpoint: str, raws: Sequence[RawRequest]) -> float:
    began = time.perf_counter()
    ready.answer(endpoint, raws)
    return time.perf_counter() - began


# What is compared of an answer of numbers: one in nats, and others.
_FIGURES = {
    "tzk_nll": ("nll_nats", ()),
    "tzk_posterior": ("logit", ("encoder", "joint", "normalised")),
}

Pairs = Sequence[tuple[RawAnswer, RawAnswer]]


def _near(pairs: Pairs, name: str) -> bool:
    """Whether a figure is within the tolerance everywhere.

    What is not finite is told as none, which agrees with none.
    """
    alike = all((a is None) == (b is None) for a, b in _both(pairs, name))
    return alike and all(
        abs(a - b) <= max(MOST_RELATIVE * abs(b), MOST_ABSOLUTE) for a, b in _known(pairs, name)
    )


def _known(pairs: Pairs, name: str) -> Iterator[tuple[float, float]]:
    return ((a, b) for a, b in _both(pairs, name) if a is not None and b is not None)


def _both(pairs: Pairs, name: str) -> Iterator[tuple[float | None, float | None]]:
    for pair in pairs:
        yield from zip(*(_figures(answer, name) for answer in pair), strict=True)


def _figures(answer: RawAnswer, name: str) -> list[float | None]:
    """The answer's figure of that name, or that of each path of knowledge, in order."""
    told = json.loads(answer.body)
    return [told[name]] if name in told else [told[path][name] for path in sorted(told)]


def _levels(answer: RawAnswer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.body))).astype(int)


def _asked(case: Case, seed: dict[str, str], picture: bytes) -> dict[str, bytes]:
    fields = seed if case.given is None else seed | {"given": case.given}
    if case.endpoint == "tzk_sample":
        return _bytes(fields | {"n": "1"})
    return _bytes(fields) | {"image": picture}


def _bytes(fields: dict[str, str]) -> dict[str, bytes]:
    return {name: value.encode() for name, value in fields.items()}
