"""Squeeze: space to depth (Dinh et al. 2016, section 3.6)."""

from __future__ import annotations

from torch import Tensor

from .layer import Invertible

__all__ = ["Squeeze", "depth_to_space", "space_to_depth"]


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) → (B, C·f², H/f, W/f), channel c·f² + i·f + j from row i and column j.

    As torch's ``pixel_unshuffle``, which gives a batch of none back in its old shape.
    """
    batch, channels, height, breadth = x.shape
    high, wide = height // factor, breadth // factor
    parts = x.reshape(batch, channels, high, factor, wide, factor).permute(0, 1, 3, 5, 2, 4)
    return parts.reshape(batch, channels * factor**2, high, wide)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of :func:`space_to_depth`."""
    batch, channels, high, wide = x.shape
    channels //= factor**2
    parts = x.reshape(batch, channels, factor, factor, high, wide).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, channels, high * factor, wide * factor)


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
        return space_to_depth(t, self.factor), t.new_zeros(t.shape[0])

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if z.ndim != 4 or z.shape[1] % self.factor**2:
            raise ValueError(
                f"expected maps with channels that {self.factor**2} divides, got {tuple(z.shape)}"
            )
        return depth_to_space(z, self.factor), z.new_zeros(z.shape[0])
