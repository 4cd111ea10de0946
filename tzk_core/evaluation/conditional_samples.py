"""Samples of the kinds below a knowledge, and whether they are what was asked for.

A sampler that draws one template a class would be read as asked for every time. So there are two
further figures: how well a classifier that was trained on nothing but samples reads real images,
and the variance of pixels within a class against the real one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..conditional import Observations
from ..data.decoding import encode_png, grid
from ..data.names import slugs
from ..data.quantisation import LEVELS, to_pixels
from ..errors import UsageError
from ..model import TzK
from ..randomness import Rows, derived
from .classifier import ImageClassifier
from .figures import mean_of, mean_of_groups
from .held_out import Figure

__all__ = [
    "ClassSamples",
    "Drawn",
    "class_grid",
    "class_paths",
    "draw_classes",
    "draw_images",
    "pixel_variance",
    "read_as_asked",
]


@dataclass(frozen=True)
class ClassSamples:
    """Samples of several kinds, ``n`` each, in the order of ``paths``."""

    pixels: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,), index into paths
    paths: list[str]
    temperature: float
    seed: int
    acceptance_rates: list[float]  # of each path: accepted ÷ tried codes
    resampled: bool  # whether codes ran out of tries and were resampled by importance
    lost: Tensor  # bool (N,), those that were not finite: black, and never right


def class_paths(model: TzK, parent: str, label_names: list[str]) -> list[str]:
    """The path below ``parent`` of each label of some data, in their order.

    Raises:
        UsageError: a label has no knowledge below ``parent``.
    """
    paths = [f"{parent}/{name}" for name in slugs(label_names)]
    missing = [path for path in paths if path not in model.paths()]
    if missing or not paths:
        raise UsageError(
            f"the data have {len(label_names)} labels, and the model has no "
            f"{', '.join(missing) or 'label to compare'}; it knows "
            f"{', '.join(model.paths()) or 'nothing yet'}"
        )
    return paths


class Drawn(NamedTuple):
    """Samples of one distribution, as levels."""

    pixels: Tensor  # uint8 (n, C, H, W)
    lost: Tensor  # bool (n,), those that were not finite: black
    acceptance_rate: float  # accepted ÷ tried codes; 1 where there are none
    resampled: bool  # whether codes ran out of tries and were resampled by importance


def draw_images(
    distribution: Observations,
    n: int,
    *,
    first: int,
    batch: int = 100,
    tick: Callable[[int], None] | None = None,
) -> Drawn:
    """``n`` samples, the i-th from a generator of its own seeded ``first`` + i.

    ``batch`` changes nothing but the memory that is needed. A sample that is not finite, which a
    flow may give of a rare code, is kept as lost.
    """
    pixels, lost, tried, resampled = [], [], 0.0, False
    for start in range(0, n, batch):
        count = min(batch, n - start)
        drawn = distribution.draw(count, rows=Rows.from_seed(first + start, count))
        finite = drawn.images.isfinite().flatten(1).all(1)
        shape = (-1, *[1] * (drawn.images.ndim - 1))
        # t = −½ is black.
        pixels.append(to_pixels(torch.where(finite.reshape(shape), drawn.images, -0.5)).cpu())
        lost.append(~finite.cpu())
        rate = 1.0 if drawn.acceptance_rate is None else drawn.acceptance_rate
        tried += count / max(rate, 1e-12)
        resampled = resampled or drawn.effective_sample_size is not None
        if tick is not None:
            tick(count)
    return Drawn(torch.cat(pixels), torch.cat(lost), n / tried, resampled)


def draw_classes(
    model: TzK,
    paths: list[str],
    n: int,
    *,
    temperature: float,
    seed: int,
    batch: int = 100,
    tick: Callable[[int], None] | None = None,
) -> ClassSamples:
    """``n`` samples of each path at a temperature of z, codes at theirs.

    The seed of a path's first sample follows from ``seed`` and the path, so that the classes do
    not share noise.
    """
    drawn = [
        draw_images(
            model.given(path, temperature=temperature),
            n,
            first=int(torch.randint(2**62, (), generator=derived(seed, "samples", path))),
            batch=batch,
            tick=tick,
        )
        for path in paths
    ]
    return ClassSamples(
        pixels=torch.cat([each.pixels for each in drawn]),
        labels=torch.arange(len(paths)).repeat_interleave(n),
        paths=paths,
        temperature=temperature,
        seed=seed,
        acceptance_rates=[each.acceptance_rate for each in drawn],
        resampled=any(each.resampled for each in drawn),
        lost=torch.cat([each.lost for each in drawn]),
    )


def read_as_asked(
    classifier: ImageClassifier, samples: ClassSamples
) -> tuple[Figure, list[Figure]]:
    """The share of samples that the classifier reads as their class: the mean, and each class."""
    right = (classifier.classify(samples.pixels) == samples.labels) & ~samples.lost
    each = [
        mean_of(right[samples.labels == index], path, "share")
        for index, path in enumerate(samples.paths)
    ]
    return mean_of_groups(each, "read as asked for"), each


def pixel_variance(pixels: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The variance of a pixel within each class, averaged over the pixels, (classes,) float64.

    In squares of ``t``'s unit, where 256 levels are 1. NaN for a class of fewer than two images.
    """
    found = torch.full((classes,), torch.nan, dtype=torch.float64)
    for index in range(classes):
        own = pixels[labels == index]
        if len(own) > 1:
            found[index] = (own.double() / LEVELS).var(0).mean()
    return found


def class_grid(samples: ClassSamples, columns: int = 10) -> bytes:
    """A PNG of the first ``columns`` samples of each class, one class a row."""
    chosen = [
        samples.pixels[samples.labels == index][:columns] for index in range(len(samples.paths))
    ]
    return encode_png(grid(torch.cat(chosen).numpy(), columns=min(columns, len(chosen[0]))))
