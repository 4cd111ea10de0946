r"""How usual an image is among held-out ones: a tail probability (design, section 7).

Each statistic of an image (:mod:`tzk_core.typicality_statistics`) is first put on the scale of a
standard normal by its rank among held-out training images, straight on beyond them: g(s). Their
Mahalanobis distance,

.. math:: d(s) = g(s)^T \Sigma^{-1} g(s),

with Σ the covariance of g over the same images, grows to either side of every statistic and of
every combination of them, differences such as log p less the length of the PNG included.
``typicality`` is the rank of d among the distances of
other held-out images, so it is uniform on images like those, and small for images that are unlike
them in whichever direction; beyond all of them it goes on falling, as an order
(:meth:`Typicality.tail`). It is no probability of being out of distribution.

g and Σ are fitted on one part of the held-out images, the ranks are of a second, and how uniform it
is is told of a third.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from .randomness import derived
from .typicality_statistics import forward, png_probe, statistic_names, statistics

if TYPE_CHECKING:
    from .model import TzK
    from .training.dataset import Dataset

__all__ = [
    "Fitted",
    "Typicality",
    "fit_typicality",
    "held_out_parts",
    "ks_uniform",
    "stored_typicality",
]

KEY = "typicality"  # in the model's statistics
MOST = 6000  # held-out images that are looked at
LEAST = 100  # below which there is nothing to compare with
BATCH = 128
SHARES = (0.25, 0.5)  # to fit and to calibrate; the rest to report on
KNOTS = 101  # of each statistic
RIDGE = 1e-3  # added to the diagonal of Σ, so that it can be inverted
PNG_TOLERANCE = 0.01  # of a length, which varies by tens of percent over images


class Typicality(BaseModel):
    """A fitted and calibrated score, as config.json holds it.

    >>> s = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> t = Typicality.fit(["a", "b"], s[:1000], s[1000:])
    >>> t.tail(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, -9.0]])).round(decimals=2).tolist()
    [1.0, 0.0, 0.0]
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    statistics: list[str] = Field(description="what is compared, by name")
    knots: list[list[float]] = Field(description="of g: values of each statistic, rising")
    scores: list[list[float]] = Field(description="of g: normal scores of the knots")
    precision: list[list[float]] = Field(description="Σ⁻¹")
    calibration: list[float] = Field(min_length=1, description="d of the second part, sorted")
    png_probe: list[int] = Field(description="lengths of fixed pictures where it was fitted")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Typicality:
        size = len(self.statistics)
        sides = {len(self.knots), len(self.precision), *map(len, self.precision)}
        if sides != {size} or list(map(len, self.knots)) != list(map(len, self.scores)):
            raise ValueError(f"there are {size} statistics, but not everywhere")
        return self

    @classmethod
    def fit(cls, names: list[str], first: Tensor, second: Tensor) -> Typicality:
        """g and Σ of ``first``, ranks of ``second``; both (N, statistics), float64.

        Raises:
            ValueError: a statistic is not finite.
        """
        if not (first.isfinite().all() and second.isfinite().all()):
            raise ValueError("a statistic of a held-out image is not finite")
        knots, scores = zip(*(_knots(column) for column in first.T), strict=True)
        made = cls(
            statistics=names,
            knots=knots,
            scores=scores,
            precision=torch.eye(len(names)).tolist(),
            calibration=[0.0],
            png_probe=list(png_probe()),
        )
        g = made.normalised(first)
        covariance = g.T @ g / len(g) + RIDGE * torch.eye(len(names), dtype=g.dtype)
        made = made.model_copy(update={"precision": torch.linalg.inv(covariance).tolist()})
        ranks = [float(f"{d:.7g}") for d in made.distance(second).sort().values.tolist()]
        return made.model_copy(update={"calibration": ranks})

    def normalised(self, values: Tensor) -> Tensor:
        """g of statistics (B, statistics), float64, of the same shape."""
        columns = values.double().T.numpy()
        parts = [_on_normal_scale(*part) for part in zip(columns, self.knots, self.scores)]
        return torch.from_numpy(np.stack(parts, 1))

    def distance(self, values: Tensor) -> Tensor:
        """d of statistics (B, statistics), float64 (B,)."""
        g, precision = self.normalised(values), torch.tensor(self.precision, dtype=torch.float64)
        # Not a matrix product: that of a batch would round otherwise than that of one image.
        return (g.unsqueeze(2) * precision * g.unsqueeze(1)).sum((1, 2))

    def tail(self, values: Tensor) -> Tensor:
        """Typicality, float64 (B,), in [0, 1]; NaN where a statistic is not finite.

        It is (1 + the number of the n calibration images that lie at least as far out) / (n + 1),
        at distance d beyond all of them times (1 + the farthest's distance) / (1 + d). So it falls
        all the way, and images beyond the calibration's are told apart, not tied at 1/(n + 1).

        For every α ≥ 1/(n + 1) it is at most α for the images for which the rank alone is, so for
        at most a share α of images like the held-out ones. Below 1/(n + 1) it is an order, and no
        probability: n images say nothing of rarer things.
        """
        tails = [self._tail(distance) for distance in self.distance(values).tolist()]
        found = torch.tensor(tails, dtype=torch.float64)
        return torch.where(values.isfinite().all(1), found, torch.nan)

    def _tail(self, distance: float) -> float:
        count, farthest = len(self.calibration), self.calibration[-1]
        rank = (1 + count - bisect_left(self.calibration, distance)) / (count + 1)
        return rank * (1 + farthest) / (1 + distance) if distance > farthest else rank


class Fitted(NamedTuple):
    """What `fit_typicality` gives."""

    typicality: Typicality
    report: Tensor  # typicality of the third part, (N,)


def fit_typicality(model: TzK, data: Dataset, *, seed: int) -> Fitted | str:
    """Fits on held-out images, of which at most 6,000 are looked at.

    Returns:
        What was fitted, or why nothing could be.
    """
    names = statistic_names(model)
    if not names:
        return "the model's observations are no images"
    if len(data) < LEAST:
        return f"{len(data)} images were held out, and it takes {LEAST}"
    parts = held_out_parts(model, data, seed=seed)
    try:
        made = Typicality.fit(names, *parts[:2])
    except ValueError as error:
        return str(error)
    return Fitted(made, made.tail(parts[2]))


@torch.no_grad()
def held_out_parts(model: TzK, data: Dataset, *, seed: int) -> list[Tensor]:
    """The statistics of the three parts of the held-out images, each (N, statistics)."""
    index = torch.randperm(len(data), generator=derived(seed, KEY))[:MOST]
    values = torch.cat(
        [
            statistics(
                forward(model, data.observations(part, derived(seed, KEY, i)).to(model.device)),
                data.pixels[part],
            )
            for i, part in enumerate(index.split(BATCH))
        ]
    )
    first, second = (int(share * len(values)) for share in SHARES)
    return list(values.split([first, second, len(values) - first - second]))


def stored_typicality(model: TzK) -> Typicality | str:
    """What a model has stored, or why it cannot tell how usual an image is."""
    stored = model.statistics.get(KEY)
    if stored is None:
        return "no statistics for it are stored in this model"
    try:
        found = Typicality.model_validate(stored)
    except ValidationError as error:
        where = "/".join(str(part) for part in error.errors()[0]["loc"])
        return f"what is stored for it is wrong at {where or 'its sizes'}"
    if found.statistics != statistic_names(model):
        return "what is stored for it belongs to a flow of another shape"
    here = png_probe()
    if len(here) != len(found.png_probe) or any(
        abs(a - b) > PNG_TOLERANCE * b for a, b in zip(here, found.png_probe, strict=True)
    ):
        return "PNG files have other lengths here than where it was fitted: Pillow's zlib differs"
    return found


def ks_uniform(tails: Tensor) -> float:
    """The Kolmogorov–Smirnov distance of numbers in [0, 1] from the uniform distribution."""
    ordered = tails.double().sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max())


def _knots(column: Tensor) -> tuple[list[float], list[float]]:
    """Values of a statistic evenly spaced by rank, both ends included, and their normal scores.

    Equal values become one, with the mean of their scores: a statistic that never varies is 0.
    """
    ordered, count = column.sort().values, len(column)
    index = torch.linspace(0, count - 1, min(KNOTS, count)).round().long()
    scores = torch.special.ndtri((index.double() + 0.5) / count)
    knots, place = ordered[index].unique(return_inverse=True)
    sums = torch.zeros_like(knots).index_add(0, place, scores)
    return knots.tolist(), (sums / place.bincount()).tolist()


def _on_normal_scale(x: np.ndarray, knots: list[float], scores: list[float]) -> np.ndarray:
    """g of one statistic: between knots by interpolation, beyond them as over the outer ones."""
    inside = np.interp(x, knots, scores)
    tail = max(1, len(knots) // 20)
    if len(knots) == 1:
        return x - knots[0]
    low = (scores[tail] - scores[0]) / (knots[tail] - knots[0])
    high = (scores[-1] - scores[-1 - tail]) / (knots[-1] - knots[-1 - tail])
    below, above = np.minimum(x - knots[0], 0), np.maximum(x - knots[-1], 0)
    return inside + low * below + high * above
