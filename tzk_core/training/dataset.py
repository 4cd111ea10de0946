"""The images of a recipe in memory, and the batches that a step sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.images import Images
from ..data.quantisation import dequantise
from ..data.sources import load, split_holdout
from ..model import TzK
from ..randomness import derived, rows
from .labels import Known, existence_of
from .recipe import DataConfig

__all__ = ["Batch", "Dataset", "Latents", "batch_index", "load_data"]


@dataclass
class Dataset:
    """Prepared images of all sources, with what is known of each."""

    pixels: Tensor  # uint8 (N, C, H, W)
    native_dims: Tensor  # int64 (N,)
    known: Known
    names: list[str]  # of the sources
    origin: Tensor  # int64 (N,), index into names
    fingerprints: dict[str, str]
    skipped: list[str]  # one line for each image of the sources that could not be read

    def __len__(self) -> int:
        return len(self.pixels)

    def observations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """t of some images, dequantised with fresh noise, (B, C, H, W)."""
        x = self.pixels[index]
        return dequantise(x, rows(generator, len(x)).uniform(*x.shape[1:]))


@dataclass
class Batch:
    """What a step sees."""

    t: Tensor
    existence: dict[str, Tensor]
    latent: tuple[Tensor, Tensor] | None = None  # (z, log_det) where the t-flow is frozen


def load_data(config: DataConfig, seed: int, progress=None) -> tuple[Dataset, Dataset]:
    """(training images, held-out images) of a recipe's sources.

    The split depends on each image's content and the seed, so equal images fall on one side.
    """
    pairs, skipped = [], []
    for source in config.sources:
        images = load(
            source.source,
            split="train",
            preparation=config.preparation,
            limit=source.limit,
            max_bad_share=config.max_bad_share,
            progress=progress,
        )
        skipped += images.skipped
        pairs.append((source, *split_holdout(images, config.holdout, seed)))
    # What cannot be read is on neither side: the training images tell of it.
    return (
        _join([(source, train) for source, train, _ in pairs], skipped),
        _join([(source, held) for source, _, held in pairs], []),
    )


def _join(parts: list[tuple], skipped: list[str]) -> Dataset:
    images: list[Images] = [part for _, part in parts]
    return Dataset(
        pixels=torch.from_numpy(np.concatenate([i.pixels for i in images])),
        native_dims=torch.from_numpy(np.concatenate([i.native_dims for i in images])),
        known=existence_of(parts),
        names=[source.knowledge or i.name for source, i in parts],
        origin=torch.cat([torch.full((len(i),), k) for k, i in enumerate(images)]),
        fingerprints={source.source: i.fingerprint for source, i in parts},
        skipped=skipped,
    )


def batch_index(count: int, batch: int, step: int, seed: int, stage: int) -> Tensor:
    """Which images step ``step`` of a stage sees: a seeded shuffle an epoch, whole batches.

    It depends on nothing but its arguments, so a resumed run goes on where it was.
    """
    size = min(batch, count)
    a_pass = count // size
    epoch, place = divmod(step, a_pass)
    order = torch.randperm(count, generator=derived(seed, "order", stage, epoch))
    return order[place * size : (place + 1) * size]


class Latents:
    """t, z and log|det| of all training images for a few noise draws, on a frozen t-flow.

    Design, section 10: fitting knowledge needs the t-flow's z only, so it is worked out once.
    """

    def __init__(self, draws: int, t: Tensor, z: Tensor, log_det: Tensor) -> None:
        self.draws, self.t, self.z, self.log_det = draws, t, z, log_det

    @classmethod
    @torch.no_grad()
    def encode(cls, model: TzK, data: Dataset, draws: int, seed: int, tick) -> Latents:
        """Encodes every image ``draws`` times; ``tick(images)`` is called as they are done."""
        count = len(data)
        t = torch.empty(draws, count, *model.observation_shape)
        z = torch.empty(draws, count, *model.latent_shape)
        log_det = torch.empty(draws, count)
        for draw in range(draws):
            for start in range(0, count, 256):
                index = torch.arange(start, min(start + 256, count))
                observed = data.observations(index, derived(seed, "latents", draw, start))
                t[draw, index] = observed
                there = model.flow.encode(observed.to(model.device))
                z[draw, index], log_det[draw, index] = (part.cpu() for part in there)
                tick(len(index))
        return cls(draws, t, z, log_det)

    def pick(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(t, z, log_det) of some images, each from one of its draws."""
        draw = torch.randint(self.draws, (len(index),), generator=generator)
        return self.t[draw, index], self.z[draw, index], self.log_det[draw, index]
