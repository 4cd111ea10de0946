"""Between 256 grey levels and the continuous observation ``t``.

``t = (x + u) / 256 - 1/2`` with x the level and u uniform on [0, 1) (design, section 11). So
log p(t) is the density of ``t``, and what a user is told is of the 256-level image:
``nll_nats = -log p(t) + D ln 256``, an upper bound in expectation on -log P(x) over u.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["LEVELS", "average_draws", "bits_per_dim", "dequantise", "nll_nats", "to_pixels"]

LEVELS = 256


def dequantise(pixels: Tensor, noise: Tensor) -> Tensor:
    """The observation ``t`` of some pixels.

    Args:
        pixels: levels, uint8, shape (B, C, H, W).
        noise: uniform on [0, 1), the same shape, in the dtype that ``t`` is to have.

    Returns:
        ``t`` in [-1/2, 1/2), of the noise's dtype, on the noise's device. It is kept half an
        epsilon below the next level's edge, so that ``to_pixels(dequantise(x, u)) == x`` for every
        u: in float32, 255 + u rounds to 256 for u above 1 - 2**-17.

    Raises:
        ValueError: the pixels are not uint8, the noise neither float32 nor float64, or the shapes
            differ.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 levels, not {pixels.dtype}")
    if noise.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"noise must be float32 or float64, not {noise.dtype}")
    if pixels.shape != noise.shape:
        raise ValueError(f"noise of shape {tuple(noise.shape)} for pixels {tuple(pixels.shape)}")
    level = pixels.to(device=noise.device, dtype=noise.dtype)
    next_edge = (level + 1) / LEVELS - 0.5
    below_edge = next_edge - torch.finfo(noise.dtype).eps / 2
    return torch.minimum((level + noise) / LEVELS - 0.5, below_edge)


def to_pixels(t: Tensor) -> Tensor:
    """The level that each element of ``t`` lies in: floor((t + 1/2) 256), clamped, as uint8.

    NaN becomes 0, which is a level: check that samples are finite before you call this.
    """
    levels = torch.floor((t + 0.5) * LEVELS).clamp(0, LEVELS - 1)
    return torch.nan_to_num(levels, nan=0.0).to(torch.uint8)


def average_draws(log_prob: Tensor) -> Tensor:
    """log of the mean over noise draws of p(t), (S, B) → (B,).

    The likelihoods are averaged, not their logs (design, section 11): the bound on the 256-level
    image's log P(x) tightens as S grows.
    """
    return torch.logsumexp(log_prob, 0) - math.log(len(log_prob))


def nll_nats(log_prob: Tensor, dims: int) -> Tensor:
    """Nats of the 256-level image from log p(t) in nats and D, the number of elements of ``t``."""
    return dims * math.log(LEVELS) - log_prob


def bits_per_dim(nll_nats: Tensor, dims: Tensor | int) -> Tensor:
    """Bits for each of ``dims`` elements (D, or the native D) from nats an image."""
    return nll_nats / (dims * math.log(2))
