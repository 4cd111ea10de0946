"""Squeeze: space to depth (Dinh et al. 2016, section 3.6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .layer import Invertible

__all__ = ["Squeeze"]


class Squeeze(Invertible):
    """(B, C, H, W) ↔ (B, C·f², H/f, W/f), log-determinant 0."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if t.ndim != 4 or t.shape[2] % self.factor or t.shape[3] % self.factor:
            raise ValueError(
                f"expected maps with sides that {self.factor} divides, got {tuple(t.shape)}"
            )
        return pixel_unshuffle(t, self.factor), t.new_zeros(t.shape[0])

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if z.ndim != 4 or z.shape[1] % self.factor**2:
            raise ValueError(
                f"expected maps with channels that {self.factor**2} divides, got {tuple(z.shape)}"
            )
        return pixel_shuffle(z, self.factor), z.new_zeros(z.shape[0])
