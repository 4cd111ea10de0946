"""New images, each from its own seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tzk_core.composition import LOW_SAMPLE_SIZE, LowSampleSize, hardly_overlap
from tzk_core.conditional import Draw, Observations, Prior
from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import nll_nats, to_pixels
from tzk_core.errors import InvalidRequest, OutOfDeviceMemory, TzkError
from tzk_core.found import Found, ToldOfFound
from tzk_core.randomness import Rows
from tzk_core.service.answers import Reasons, SampleAnswer, Sampled, finite
from tzk_core.service.faults import NO_MEMORY
from tzk_core.service.isolation import attempted, in_groups
from tzk_core.service.paths import must_know
from tzk_core.service.pictures import base64_png, grid_png, npy
from tzk_core.service.requests import SampleRequest
from tzk_core.service.seeds import ROWS_AT_ONCE, filled_seeds, noisy, seed_of, seeds_from
from tzk_core.service.sizes import filled
from tzk_core.service.time_limit import Shares

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Samples", "sample"]


@dataclass(frozen=True)
class Samples(ToldOfFound):
    """The images that one request gave.

    Args:
        pixels: uint8, (n, C, H, W).
        seeds: one an image.
        found: how each was.
        nlls: −log p of each picture in nats, for the formats that tell it, else empty.
    """

    pixels: np.ndarray
    seeds: list[int]
    path: str | None
    temperature: float
    found: Found
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
    """The images of each request, or its error, in order.

    How long several kinds take is not known before; each such request has its share of the time.
    """
    shares, had = Shares(), set()

    def prepare(asked: SampleRequest) -> _Work:
        for pointer, paths in (("/given", asked.given), ("/absent", asked.absent)):
            for path in paths or []:
                must_know(model, path, pointer)
        work = _Work(asked, seeds_from(seed_of(asked.seed), asked.n))
        if asked.several:
            shares.expect()
        return work

    def key(work: _Work):
        asked = work.asked
        same = (asked.title, asked.temperature, asked.code_temperature, asked.paper_sampler)
        # Several kinds are a population of particles an image, which no batch makes cheaper.
        return (*same, id(work) if asked.several else None)

    def call(group: list[_Work]) -> list[Samples | TzkError]:
        if not group[0].asked.several:
            return _sample(model, group)
        if id(group[0]) in had:
            # It is tried again for want of memory; but its images are drawn one by one already.
            raise OutOfDeviceMemory(NO_MEMORY)
        had.add(id(group[0]))
        with shares.turn():
            return _sample(model, group)

    return in_groups(
        attempted(prepare, requests),
        key=key,
        call=call,
        fill=False,  # a request has many rows: _sample fills the batches up
        kinds=lambda work: work.asked.title is not None,
    )


def _sample(model: TzK, group: list[_Work]) -> list[Samples | TzkError]:
    """The images of requests that differ in number, seed and format alone."""
    asked = group[0].asked
    distribution = _distribution(model, asked)
    seeds = [seed for work in group for seed in work.seeds]
    # An image of several kinds is a batch of its own, of 64 particles or more.
    pieces = ([seed] for seed in seeds) if asked.several else filled_seeds(seeds)
    pixels, usable, found = _drawn(distribution, pieces, len(seeds))
    nlls = iter(_nlls(model, group, pixels))
    results, start = [], 0
    for work in group:
        part = slice(start, start + work.asked.n)
        start = part.stop
        told = [next(nlls) for _ in work.seeds] if _tells(work) else []
        if not usable[part].all():
            results.append(_overflow(work.asked))
            continue
        results.append(
            Samples(
                pixels=pixels[part].numpy(),
                seeds=work.seeds,
                path=work.asked.title,
                temperature=work.asked.temperature,
                found=found[part],
                nlls=told,
            )
        )
    return results


def _drawn(
    distribution: Observations, pieces: Iterable[list[int]], count: int
) -> tuple[torch.Tensor, torch.Tensor, Found]:
    """Pictures of the pieces' seeds, which of them are finite, and how each was found.

    What stays of a piece is a byte an element: the floating point of thousands of images, their
    codes and latent states would not fit beside the model.

    Args:
        count: of the images wanted; the last piece may have more, to fill it up.
    """
    pixels, usable, found = [], [], []
    for piece in pieces:
        draw = _draw(distribution, piece)
        usable.append(torch.isfinite(draw.images).flatten(1).all(1).cpu())
        pixels.append(to_pixels(torch.nan_to_num(draw.images)).cpu())
        found.append(draw.found)
        del draw  # before the next is made
    return torch.cat(pixels)[:count], torch.cat(usable)[:count], Found.joined(found)[:count]


def _tells(work: _Work) -> bool:
    """Whether the answer has figures beside the pictures."""
    return work.asked.format == "json"


def _distribution(model: TzK, asked: SampleRequest) -> Observations:
    if asked.title is None:
        return Prior(model, asked.temperature)
    return model.given(
        *(asked.given or []),
        absent=asked.absent or [],
        temperature=asked.temperature,
        code_temperature=asked.code_temperature,
        paper_sampler=asked.paper_sampler,
    )


def _draw(distribution: Observations, seeds: list[int]) -> Draw:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowSampleSize)  # the answer's notes say it
        return distribution.draw(len(seeds), rows=Rows(seeds))


def _nlls(model: TzK, group: list[_Work], pixels: torch.Tensor) -> list[float]:
    """Of the pictures as sent, so that tzk_nll says the same of each with its seed.

    Args:
        group: of requests, some of which tell figures.
        pixels: of all of them in order, uint8 (N, C, H, W).
    """
    tells = [_tells(work) for work in group for _ in work.seeds]
    if not any(tells):
        return []
    seeds = [seed for work in group if _tells(work) for seed in work.seeds]
    told, log_probs = pixels[torch.tensor(tells)], []
    for part, size in filled(len(seeds), ROWS_AT_ONCE):
        t = noisy(model, told[part], Rows(seeds[part]))
        whole = torch.cat([t, t[-1:].expand(size - len(t), *t.shape[1:])])
        log_probs.append(model.prior.log_prob(whole)[: len(t)])
    return nll_nats(torch.cat(log_probs).double().cpu(), pixels[0].numel()).tolist()


def _overflow(asked: SampleRequest) -> InvalidRequest:
    return InvalidRequest(
        f"at temperature {asked.temperature:g} an image came out that is not finite; "
        "temperatures from 0 to 1 are usual",
        pointer="/temperature",
    )
