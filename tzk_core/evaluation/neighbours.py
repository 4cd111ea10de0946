"""The training images nearest to some others: do samples copy what was trained on?

A model that copies gives samples far nearer to training images than unseen real images are. So the
distances of samples mean something only beside those of test images, as many of them, since a
smallest distance falls with the number of tries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .figures import mean_of
from .held_out import Figure

__all__ = ["Copying", "Nearest", "copying", "nearest"]

BLOCK = 2048  # training images at a time
NEAR = 0.01  # the quantile of test images' distances that samples are held against


class Nearest(NamedTuple):
    """The k nearest training images of each image, nearest first."""

    distance: Tensor  # float64 (N, k): root mean square over all elements, in grey levels
    index: Tensor  # int64 (N, k)


@dataclass(frozen=True)
class Copying:
    """Distances of samples to their nearest training image, beside those of test images."""

    samples: Figure  # mean distance, grey levels
    test_images: Figure
    quantiles: dict[str, list[float]]  # of either: smallest, 1 %, 10 %, median, 90 %
    nearer: Figure  # share of samples below the test images' 1 % quantile; 0.01 by chance
    copies: int  # samples that are a training image, level for level
    copied_test_images: int  # test images that are: duplicates within the data


def nearest(
    pixels: Tensor,
    training: Tensor | np.ndarray,
    *,
    k: int = 1,
    device: str | torch.device = "cpu",
    tick: Callable[[int], None] | None = None,
) -> Nearest:
    """Exact, by all distances: |a|² + |b|² − 2ab in float64, in which whole levels do not round.

    Args:
        pixels: uint8 (N, C, H, W).
        training: uint8 (M, C, H, W), M ≥ k; a block is copied at a time.
        tick: called with the number of training images of each block.
    """
    a = pixels.flatten(1).to(device, torch.float64)
    squares = a.square().sum(1, keepdim=True)
    best = torch.full((len(a), k), torch.inf, dtype=torch.float64, device=device)
    index = torch.zeros(len(a), k, dtype=torch.int64, device=device)
    for start in range(0, len(training), BLOCK):
        block = torch.from_numpy(np.array(training[start : start + BLOCK]))
        b = block.flatten(1).to(device, torch.float64)
        distance = squares + b.square().sum(1) - 2 * (a @ b.T)
        numbers = torch.arange(start, start + len(b), device=device).expand(len(a), -1)
        # A stable order, so that of equal distances the first image is taken.
        best, order = torch.cat((best, distance), 1).sort(dim=1, stable=True)
        index = torch.cat((index, numbers), 1).gather(1, order)[:, :k]
        best = best[:, :k]
        if tick is not None:
            tick(len(b))
    distance = (best.clamp(min=0) / a.shape[1]).sqrt()
    return Nearest(distance.cpu(), index.cpu())


def copying(samples: Tensor, test_images: Tensor) -> Copying:
    """Figures of the distances (N,) of samples and (M,) of test images to their nearest."""
    threshold = float(test_images.quantile(NEAR))
    places = torch.tensor([0.0, 0.01, 0.1, 0.5, 0.9], dtype=torch.float64)
    return Copying(
        samples=mean_of(samples, "distance of samples", "grey levels"),
        test_images=mean_of(test_images, "distance of test images", "grey levels"),
        quantiles={
            "samples": samples.quantile(places).tolist(),
            "test_images": test_images.quantile(places).tolist(),
        },
        nearer=mean_of(samples < threshold, "samples nearer than 99 % of test images", "share"),
        copies=int((samples == 0).sum()),
        copied_test_images=int((test_images == 0).sum()),
    )
