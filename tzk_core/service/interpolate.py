"""The images between two or four others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tzk_core.data.preparation import Prepared
from tzk_core.data.quantisation import nll_nats, to_pixels
from tzk_core.errors import InvalidRequest, TzkError
from tzk_core.randomness import Rows
from tzk_core.service.answers import InterpolateAnswer, Interpolated, Reasons, finite
from tzk_core.service.isolation import attempted
from tzk_core.service.paths import must_know
from tzk_core.service.pictures import base64_png, grid_png, npy, prepared, stacked
from tzk_core.service.requests import InterpolateRequest
from tzk_core.service.seeds import noisy, seed_of, seeds_from

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Between", "interpolate"]


@dataclass(frozen=True)
class Between:
    """The images that one request gave.

    Args:
        pixels: uint8, (rows · columns, C, H, W), row by row.
        nlls: −log p of each in nats.
        notes: how the corners were prepared.
    """

    asked: InterpolateRequest
    seed: int
    pixels: np.ndarray
    nlls: list[float]
    notes: list[str]

    def png(self, *, as_grid: bool = True) -> bytes:
        """One picture, always a grid."""
        return grid_png(self.pixels, columns=self.asked.shape[1])

    def npy(self) -> bytes:
        return npy(self.pixels)

    def answer(self) -> InterpolateAnswer:
        reasons: Reasons = {}
        rows, columns = self.asked.shape
        images = [
            Interpolated(png=base64_png(one), nll_nats=finite(nll, "nll_nats", reasons))
            for one, nll in zip(self.pixels, self.nlls, strict=True)
        ]
        return InterpolateAnswer(
            seed=self.seed,
            given=self.asked.given,
            method=self.asked.method,
            space=self.asked.space,
            estimator="prior" if self.asked.space == "z" else "reconstruction",
            rows=rows,
            columns=columns,
            images=images,
            notes=self.notes,
            reasons=reasons,
        )


def interpolate(
    model: TzK, requests: Sequence[InterpolateRequest | TzkError]
) -> list[Between | TzkError]:
    """The images of each request, or its error, in order; each is a batch of its own already."""
    return attempted(lambda asked: _interpolate(model, asked), requests)


def _interpolate(model: TzK, asked: InterpolateRequest) -> Between:
    if asked.given is not None:
        must_know(model, asked.given, "/given")
    pictures = [
        prepared(image, model.preparation, f"/images/{i}") for i, image in enumerate(asked.images)
    ]
    seed = seed_of(asked.seed)
    rows = Rows(seeds_from(seed, len(pictures)))
    between = model.interpolate(
        noisy(model, stacked(pictures), rows),
        steps=asked.shape,
        method=asked.method,
        space=asked.space,
        given=asked.given,
        generator=rows,
    )
    if not torch.isfinite(between.images).all():
        raise InvalidRequest(
            f"between these images lies one that is not finite with method {asked.method} in "
            f"space {asked.space}; try the other method or space",
            pointer="/method",
        )
    pixels = to_pixels(between.images).cpu().numpy()
    nlls = nll_nats(between.log_prob.double().cpu(), pixels[0].size).tolist()
    return Between(asked, seed, pixels, nlls, _notes(pictures))


def _notes(pictures: Sequence[Prepared]) -> list[str]:
    """What was done to each corner, said once where it is the same."""
    told: dict[str, list[int]] = {}
    for i, picture in enumerate(pictures, start=1):
        for note in picture.notes:
            told.setdefault(note, []).append(i)
    every = len(pictures)
    return [
        note if len(where) == every else f"image {', '.join(map(str, where))}: {note}"
        for note, where in told.items()
    ]
