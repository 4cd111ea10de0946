"""What is measured of an image to tell how usual it is: one forward pass and one PNG encoding.

For a t-flow of L levels there are 2L + 1 statistics (design, section 7)::

    |z_l|²         l = 1…L, finest first, z_l being what level l factors out
    log|∂z/∂t|_l   l = 1…L, the log-determinant of level l's steps, nats
    PNG            bits/dim of the prepared pixels as a PNG file

log p of each level, log p(t) and its difference from the PNG's length (Serrà et al. 2020,
https://arxiv.org/abs/1909.11480) are functions of these, so that a score that knows how they
covary (:mod:`tzk_core.typicality`) has no need of them besides.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .data.decoding import encode_png
from .densities import standard_normal

if TYPE_CHECKING:
    from .model import TzK

__all__ = ["Levels", "forward", "png_bits_per_dim", "png_probe", "statistic_names", "statistics"]

PROBE_SIDE = 32


class Levels(NamedTuple):
    """One pass through the t-flow, level by level, finest first."""

    log_prob: Tensor  # log p(t), nats, (B,)
    squares: Tensor  # |z_l|², (B, L)
    log_dets: Tensor  # log|det| of level l's steps, nats, (B, L)

    def on_cpu(self) -> Levels:
        """The same in float64 on the CPU."""
        return Levels(*(part.double().cpu() for part in self))


def forward(model: TzK, t: Tensor) -> Levels:
    """Encodes t (B, C, H, W) and tells of each level.

    ``log_prob`` has the bits of ``model.prior.log_prob(t)``.
    """
    z, log_det, by_level = model.flow.encode_levels(t)
    parts = z.split(model.flow.level_channels, dim=1)
    squares = [part.square().flatten(1).sum(1) for part in parts]
    return Levels(standard_normal(z) + log_det, torch.stack(squares, 1), by_level)


def png_bits_per_dim(pixels: Tensor) -> Tensor:
    """Bits for each element of uint8 pixels (B, C, H, W) as PNG files, float64 (B,)."""
    sizes = [len(encode_png(image)) for image in pixels.cpu().numpy()]
    return torch.tensor(sizes, dtype=torch.float64) * 8 / math.prod(pixels.shape[1:])


def statistics(levels: Levels, pixels: Tensor) -> Tensor:
    """The statistics of images, float64 on the CPU, (B, 2L + 1), as `statistic_names` names them.

    Args:
        levels: of `forward`.
        pixels: the same images' levels, uint8 (B, C, H, W).
    """
    levels = levels.on_cpu()
    png = png_bits_per_dim(pixels).unsqueeze(1)
    return torch.cat((levels.squares, levels.log_dets, png), dim=1)


def statistic_names(model: TzK) -> list[str]:
    """Of the columns of `statistics`; none for a model whose observation is no image."""
    levels = getattr(model.flow, "levels", None)
    if levels is None:
        return []
    numbers = range(1, len(levels) + 1)
    return [
        *(f"square_{level}" for level in numbers),
        *(f"log_det_{level}" for level in numbers),
        "png_bits_per_dim",
    ]


@lru_cache(maxsize=1)
def png_probe() -> tuple[int, ...]:
    """The lengths of some fixed pictures as PNG files, in bytes.

    Which zlib Pillow was built with decides how long a PNG is. A model stores these, so that one
    served with another zlib does not compare lengths that mean something else.
    """
    row, column = np.mgrid[:PROBE_SIDE, :PROBE_SIDE]
    # Smooth, of few levels, of strokes, and without any order (a linear congruence's high bits).
    mixed = (row * PROBE_SIDE + column) * 1103515245 + 12345
    pictures = (
        (row + column) * 4,
        ((row // 4 + column // 4) % 2) * 255,
        ((row - 16) ** 2 + (column - 16) ** 2 < 100) * (row * 8),
        (mixed * mixed) >> 23,
    )
    return tuple(len(encode_png((each & 255).astype(np.uint8)[None])) for each in pictures)
