"""What every invertible layer is: two directions, each with its log-determinant."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Chain", "Invertible", "check_batch"]


class Invertible(nn.Module):
    """An invertible map, t → z (``encode``) and z → t (``decode``).

    Both take a batch and return the mapped batch and the logarithm of the absolute determinant of
    that direction's Jacobian, shape (B,), in nats (design, section 11).
    """

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(z, log|det ∂z/∂t|)."""
        raise NotImplementedError(f"{type(self).__name__} has no encode")

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(t, log|det ∂t/∂z|)."""
        raise NotImplementedError(f"{type(self).__name__} has no decode")

    @torch.no_grad()
    def initialize(self, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Sets what depends on data (ActNorm) from a batch, and returns z."""
        return self.encode(t, context)[0]


class Chain(Invertible):
    """Layers one after the other: t → layer 0 → layer 1 → … → z."""

    def __init__(self, layers: Iterable[Invertible]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = t.new_zeros(t.shape[0])
        for layer in self.layers:
            t, log_det = layer.encode(t, context)
            total = total + log_det
        return t, total

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for layer in reversed(self.layers):
            z, log_det = layer.decode(z, context)
            total = total + log_det
        return z, total

    @torch.no_grad()
    def initialize(self, t: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            t = layer.initialize(t, context)
        return t


def check_batch(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses anything that is not a floating-point batch of ``shape``.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another shape.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if tuple(x.shape[1:]) != tuple(shape) or x.ndim != len(shape) + 1:
        wanted = ", ".join(str(n) for n in shape)
        raise ValueError(f"{name} must have the shape (B, {wanted}), got {tuple(x.shape)}")
