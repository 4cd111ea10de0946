"""Gaussian log-densities and soft limits: the closed forms that everything else is built on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["gaussian", "log_mean_exp", "soft_limit", "standard_normal"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats: (B, …) → (B,)."""
    return -(0.5 * z.square() + _HALF_LOG_2PI).flatten(1).sum(1)


def gaussian(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; µ, diag σ²) in nats: (B, …) → (B,)."""
    noise = (x - mean) * (-log_sigma).exp()
    return -(0.5 * noise.square() + _HALF_LOG_2PI + log_sigma).flatten(1).sum(1)


def soft_limit(x: Tensor, limits: tuple[float, float]) -> Tensor:
    """``x`` near 0, bent towards ``limits[0]`` < 0 below and ``limits[1]`` > 0 above.

    Unlike a clamp it has a gradient everywhere, so that a σ at its limit can come back.
    """
    low, high = limits
    return torch.where(x < 0, -low * torch.tanh(x / -low), high * torch.tanh(x / high))


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """log of the mean of exp(x) along ``dim``."""
    return x.logsumexp(dim) - math.log(x.shape[dim])
