"""What an endpoint gave, as the body and headers of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from tzk_core.errors import TzkError
from tzk_core.service.answers import NllAnswer
from tzk_core.service.interpolate import Between
from tzk_core.service.posterior import Judged
from tzk_core.service.problems import problem_answer
from tzk_core.service.requests import Asked
from tzk_core.service.sample import Samples
from tzk_core.service.wire import JSON, NPY, PNG, RawAnswer, header_text

__all__ = ["render", "render_list"]

Given = NllAnswer | Samples | Judged | Between


def render(asked: Asked | TzkError, given: Given | TzkError) -> RawAnswer:
    """The answer to one request."""
    if isinstance(given, TzkError):
        return problem_answer(given)
    headers = _headers(given)
    form = getattr(asked, "format", None) or "json"
    if form in ("png", "grid"):
        return RawAnswer(given.png(as_grid=form == "grid"), PNG, headers=headers)
    if form == "npy":
        return RawAnswer(given.npy(), NPY, headers=headers)
    return RawAnswer(_dumps(_plain(given)), JSON, headers=headers)


def render_list(given: Sequence[Given | TzkError]) -> RawAnswer:
    """The answer to a JSON list: each item's answer, or its problem details, in order."""
    body = [one.problem() if isinstance(one, TzkError) else _plain(one) for one in given]
    seeds = ["" if isinstance(one, TzkError) else str(_seed(one)) for one in given]
    return RawAnswer(_dumps(body), JSON, headers={"X-Tzk-Seed": ",".join(seeds)})


def _plain(given: Given) -> Any:
    if isinstance(given, Judged):
        return {path: one.model_dump() for path, one in given.answer.items()}
    answer: BaseModel = given if isinstance(given, NllAnswer) else given.answer()
    return answer.model_dump()


def _dumps(body: Any) -> bytes:
    # NaN is no JSON: the answers hold none, and this makes sure.
    return json.dumps(body, allow_nan=False, ensure_ascii=False).encode()


def _seed(given: Given) -> int:
    return given.seeds[0] if isinstance(given, Samples) else given.seed


def _headers(given: Given) -> dict[str, str]:
    headers = {"X-Tzk-Seed": str(_seed(given))}
    path = getattr(given, "path", None)
    if path:
        headers["X-Tzk-Path"] = header_text(path)
    notes = getattr(given, "notes", None)
    if notes:
        headers["X-Tzk-Notes"] = header_text("; ".join(notes))
    return headers
