"""New images, each from its own seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tzk_core.composition import LOW_SAMPLE_SIZE, LowSampleSize, hardly_overlap
from tzk_core.conditional import Draw, Prior
from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import nll_nats, to_pixels
from tzk_core.errors import InvalidRequest, TzkError
from tzk_core.randomness import Rows
from tzk_core.service.answers import Reasons, SampleAnswer, Sampled, finite
from tzk_core.service.isolation import attempted, in_groups
from tzk_core.service.paths import must_know
from tzk_core.service.pictures import base64_png, grid_png, npy
from tzk_core.service.requests import SampleRequest
from tzk_core.service.seeds import ROWS_AT_ONCE, filled_seeds, noisy, parts, seed_of, seeds_from
from tzk_core.service.sizes import filled

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Samples", "sample"]


@dataclass(frozen=True)
class Samples:
    """The images that one request gave.

    Args:
        pixels: uint8, (n, C, H, W).
        seeds: one an image.
        nlls: −log p of each picture in nats, for the formats that tell it, else empty.
    """

    pixels: np.ndarray
    seeds: list[int]
    path: str | None
    temperature: float
    acceptance_rate: float | None
    effective_sample_size: float | None
    exact: bool
    nlls: list[float] = field(default_factory=list)

    def png(self, *, as_grid: bool = False) -> bytes:
        """One picture: the image itself if there is one, else (or ``as_grid``) a grid."""
        alone = len(self.pixels) == 1 and not as_grid
        return encode_png(self.pixels[0]) if alone else grid_png(self.pixels)

    def npy(self) -> bytes:
        return npy(self.pixels)

    def answer(self) -> SampleAnswer:
        reasons: Reasons = {}
        if self.acceptance_rate is None:
            reasons["acceptance_rate"] = "no code was drawn, or none was refused"
        if self.effective_sample_size is None:
            reasons["effective_sample_size"] = "nothing was resampled"
        images = [
            Sampled(seed=seed, png=base64_png(one), nll_nats=finite(nll, "nll_nats", reasons))
            for seed, one, nll in zip(self.seeds, self.pixels, self.nlls, strict=True)
        ]
        return SampleAnswer(
            seed=self.seeds[0],
            path=self.path,
            temperature=self.temperature,
            acceptance_rate=self.acceptance_rate,
            effective_sample_size=self.effective_sample_size,
            exact=self.exact,
            images=images,
            notes=self.notes,
            reasons=reasons,
        )

    @property
    def notes(self) -> list[str]:
        """What whoever asked should know, in words."""
        size = self.effective_sample_size
        return [] if size is None or size >= LOW_SAMPLE_SIZE else [hardly_overlap(self.path, size)]


@dataclass(frozen=True)
class _Work:
    asked: SampleRequest
    seeds: list[int]


def sample(model: TzK, requests: Sequence[SampleRequest | TzkError]) -> list[Samples | TzkError]:
    """The images of each request, or its error, in order."""

    def prepare(asked: SampleRequest) -> _Work:
        for pointer, paths in (("/given", asked.given), ("/absent", asked.absent)):
            for path in paths or []:
                must_know(model, path, pointer)
        return _Work(asked, seeds_from(seed_of(asked.seed), asked.n))

    def key(work: _Work):
        asked = work.asked
        same = (asked.title, asked.temperature, asked.code_temperature, asked.paper_sampler)
        # The acceptance rate is of one draw: where it is told, others must not be in it. Several
        # kinds are a population of particles an image, which no batch makes cheaper.
        # Without knowledge no code is drawn, and there is no rate.
        tells_rate = asked.format == "json" and asked.title is not None
        alone = tells_rate or _several(asked)
        return (*same, id(work) if alone else None)

    return in_groups(
        attempted(prepare, requests),
        key=key,
        call=lambda group: _sample(model, group),
        fill=False,  # a request has many rows: _sample fills the batches up
    )


def _sample(model: TzK, group: list[_Work]) -> list[Samples | TzkError]:
    """The images of requests that differ in number, seed and format alone."""
    asked = group[0].asked
    seeds = [seed for work in group for seed in work.seeds]
    several = [seeds[part] for part in parts(len(seeds))] if _several(asked) else None
    pieces = several or filled_seeds(seeds)
    drawn = [_draw(model, asked, piece) for piece in pieces]
    t = torch.cat([draw.images for draw in drawn])[: len(seeds)]
    usable = torch.isfinite(t).flatten(1).all(1).cpu()
    pixels = to_pixels(torch.nan_to_num(t)).cpu()
    rates = [draw.acceptance_rate for draw in drawn]
    sizes = [d.effective_sample_size for d in drawn if d.effective_sample_size is not None]
    results, start = [], 0
    for work in group:
        part = slice(start, start + work.asked.n)
        start = part.stop
        if not usable[part].all():
            results.append(_overflow(work.asked))
            continue
        told = work.asked.format == "json"
        results.append(
            Samples(
                pixels=pixels[part].numpy(),
                seeds=work.seeds,
                path=work.asked.title,
                temperature=work.asked.temperature,
                acceptance_rate=None if None in rates else sum(rates) / len(rates),
                effective_sample_size=min(sizes, default=None),
                exact=all(draw.exact for draw in drawn),
                nlls=_nlls(model, pixels[part], work.seeds) if told else [],
            )
        )
    return results


def _several(asked: SampleRequest) -> bool:
    return len([*(asked.given or []), *(asked.absent or [])]) > 1


def _draw(model: TzK, asked: SampleRequest, seeds: list[int]) -> Draw:
    rows = Rows(seeds)
    if asked.title is None:
        return Prior(model, asked.temperature).draw(len(seeds), rows=rows)
    distribution = model.given(
        *(asked.given or []),
        absent=asked.absent or [],
        temperature=asked.temperature,
        code_temperature=asked.code_temperature,
        paper_sampler=asked.paper_sampler,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowSampleSize)  # the answer's notes say it
        return distribution.draw(len(seeds), rows=rows)


def _nlls(model: TzK, pixels: torch.Tensor, seeds: list[int]) -> list[float]:
    """Of the pictures as sent, so that tzk_nll says the same of each with its seed."""
    log_probs = []
    for part, size in filled(len(seeds), ROWS_AT_ONCE):
        t = noisy(model, pixels[part], Rows(seeds[part]))
        whole = torch.cat([t, t[-1:].expand(size - len(t), *t.shape[1:])])
        log_probs.append(model.prior.log_prob(whole)[: len(t)])
    return nll_nats(torch.cat(log_probs).double().cpu(), pixels[0].numel()).tolist()


def _overflow(asked: SampleRequest) -> InvalidRequest:
    return InvalidRequest(
        f"at temperature {asked.temperature:g} an image came out that is not finite; "
        "temperatures from 0 to 1 are usual",
        pointer="/temperature",
    )
