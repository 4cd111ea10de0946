"""ActNorm (Kingma & Dhariwal 2018, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layer import Invertible

__all__ = ["ActNorm"]


class ActNorm(Invertible):
    r"""One shift and one scale a channel: :math:`z = (t + b)\, e^{s}`.

    ``initialize`` sets them so that the batch it is given comes out with mean 0 and variance 1 in
    each channel. It is an explicit step before training, never a side effect of ``encode``, and
    its flag is a buffer, so that a reloaded model knows. It works on (B, C) and (B, C, H, W).

    Args:
        channels: C.
        volume_preserving: shifts only, log-determinant 0 (for an anchored code prior).
    """

    def __init__(self, channels: int, *, volume_preserving: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = None if volume_preserving else nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bias, scale = self._parameters_for(t)
        if scale is None:
            return t + bias, t.new_zeros(t.shape[0])
        return (t + bias) * scale.exp(), self._log_det(t)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bias, scale = self._parameters_for(z)
        if scale is None:
            return z - bias, z.new_zeros(z.shape[0])
        return z * (-scale).exp() - bias, -self._log_det(z)

    @torch.no_grad()
    def initialize(self, t: Tensor, context: Tensor | None = None) -> Tensor:
        if t.shape[0] < 2:
            raise ValueError(f"ActNorm needs at least 2 observations to start from, got {len(t)}")
        dims = [0, *range(2, t.ndim)]
        self.bias.copy_(-t.mean(dims))
        if self.log_scale is not None:
            # A constant channel has no scale to learn from data; 1e-6 keeps it finite.
            self.log_scale.copy_(-(t.std(dims, correction=0) + 1e-6).log())
        self.initialized.fill_(True)
        return self.encode(t)[0]

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"expected {self.channels} channels, got the shape {tuple(x.shape)}")
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = None if self.log_scale is None else self.log_scale.reshape(shape)
        return self.bias.reshape(shape), scale

    def _log_det(self, x: Tensor) -> Tensor:
        positions = math.prod(x.shape[2:])
        # In float64: the sum's rounding would count once for every position.
        total = self.log_scale.sum(dtype=torch.float64) * positions
        return total.to(x.dtype).expand(x.shape[0])
