"""A fixed permutation of the channels (Section 3 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from .layer import Invertible

__all__ = ["Shuffle"]


class Shuffle(Invertible):
    """Permutes channels, log-determinant 0.

    The paper takes a fixed shuffle instead of Glow's invertible 1×1 convolution, whose numerical
    error adds up. The permutation is drawn once from ``generator`` and kept as a buffer: a
    reloaded model is the same model, in a fresh process.
    """

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("permutation", torch.randperm(channels, generator=generator))

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._select(t, self.permutation), t.new_zeros(t.shape[0])

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._select(z, self.permutation.argsort()), z.new_zeros(z.shape[0])

    def _select(self, x: Tensor, index: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"expected {self.channels} channels, got the shape {tuple(x.shape)}")
        return x.index_select(1, index)
