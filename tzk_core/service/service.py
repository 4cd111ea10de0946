"""The four endpoints over one model: what a handler does, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tzk_core.errors import TzkError
from tzk_core.hub import CONFIG, load_config
from tzk_core.pretrained import run_folder
from tzk_core.service import logs
from tzk_core.service.answers import NllAnswer
from tzk_core.service.interpolate import Between, interpolate
from tzk_core.service.metrics.batch import Watch
from tzk_core.service.metrics.quality import model_loaded
from tzk_core.service.nll import score
from tzk_core.service.parsing import Parsed, parse
from tzk_core.service.posterior import Judged, posterior
from tzk_core.service.problems import as_error, problem_answer
from tzk_core.service.rendering import render, render_list
from tzk_core.service.requests import (
    Asked,
    InterpolateRequest,
    NllRequest,
    PosteriorRequest,
    SampleRequest,
)
from tzk_core.service.sample import Samples, sample
from tzk_core.service.wire import RawAnswer, RawRequest

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["ENDPOINTS", "Endpoint", "Service"]


@dataclass(frozen=True)
class Endpoint:
    """What an endpoint takes, and the function that answers many such requests."""

    request: type[Asked]
    call: Callable[[Any, Sequence[Any]], list[Any]]


ENDPOINTS = {
    "tzk_nll": Endpoint(NllRequest, score),
    "tzk_sample": Endpoint(SampleRequest, sample),
    "tzk_posterior": Endpoint(PosteriorRequest, posterior),
    "tzk_interpolate": Endpoint(InterpolateRequest, interpolate),
}


class Service:
    """Answers requests with a model.

    The typed calls take requests and give one answer or error for each, in order, so that a bad
    one changes nothing for its neighbours. ``answer`` is the same from bytes to bytes, and counts
    and logs what it does.

    Args:
        model: what answers.
        label: what metrics and logs call it.
    """

    def __init__(self, model: TzK, label: str = "unsaved") -> None:
        self.model = model
        self.label = label

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> Service:
        """The service of a run folder's model, on ``device`` (the CPU for ``None``).

        Raises:
            ModelUnavailable: the model is missing, corrupt or of another version.
        """
        from tzk_core.model import TzK

        logs.configure()
        model = TzK.from_pretrained(folder)
        if device is not None:
            model.to(device)
        label = _label(run_folder(folder))
        model_loaded(label, model)
        return cls(model, label)

    def score(self, requests: Sequence[NllRequest]) -> list[NllAnswer | TzkError]:
        return self._call("tzk_nll", requests)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Samples | TzkError]:
        return self._call("tzk_sample", requests)

    def posterior(self, requests: Sequence[PosteriorRequest]) -> list[Judged | TzkError]:
        return self._call("tzk_posterior", requests)

    def interpolate(self, requests: Sequence[InterpolateRequest]) -> list[Between | TzkError]:
        return self._call("tzk_interpolate", requests)

    def answer(self, endpoint: str, raws: Sequence[RawRequest]) -> list[RawAnswer]:
        """One answer for each raw request; never raises for a request's sake.

        Args:
            endpoint: a key of ``ENDPOINTS``.
        """
        watch = Watch(endpoint, [raw.headers for raw in raws], self.label)
        with watch.logs():
            with watch.stage("decode"):
                parsed = [parse(raw, ENDPOINTS[endpoint].request) for raw in raws]
            with watch.stage("model"):
                given = self._call(endpoint, [item for one in parsed for item in one.items])
            with watch.stage("encode"):
                answers = _rendered(parsed, given, watch)
            return watch.finished(answers, given)

    @torch.inference_mode()
    def _call(self, endpoint: str, requests: Sequence[Asked | TzkError]) -> list[Any]:
        return ENDPOINTS[endpoint].call(self.model, requests)


def _rendered(
    parsed: Sequence[Parsed], given: Sequence[Any | TzkError], watch: Watch
) -> list[RawAnswer]:
    """The answer to each request, from those to its items in order."""
    left = iter(given)
    answers = []
    for index, one in enumerate(parsed):
        results = [next(left) for _ in one.items]
        for result in results:
            if isinstance(result, TzkError):
                watch.failed(index, result)
        try:
            alone = not one.listed
            answers.append(render(one.items[0], results[0]) if alone else render_list(results))
        except Exception as error:
            answers.append(problem_answer(watch.failed(index, as_error(error))))
    return answers


def _label(folder: Path) -> str:
    """The first digits of the weights' SHA-256; a model from the hub has no folder here."""
    digest = load_config(folder)[1] if (folder / CONFIG).is_file() else None
    return (digest or "unnamed")[:12]
