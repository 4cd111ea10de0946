"""What every invertible layer is: two directions, each with its log-determinant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Chain", "Invertible", "check_batch", "summed"]


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
        log_dets: list[Tensor] = []
        t = self.encode_into(log_dets, t, context)
        return t, summed(log_dets, t)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_dets: list[Tensor] = []
        z = self.decode_into(log_dets, z, context)
        return z, summed(log_dets, z)

    def encode_into(self, log_dets: list[Tensor], t: Tensor, context: Tensor | None) -> Tensor:
        """z; the layers' log-determinants, for one sum of them all, go into ``log_dets``."""
        for layer in self.layers:
            if isinstance(layer, Chain):
                t = layer.encode_into(log_dets, t, context)
            else:
                t, log_det = layer.encode(t, context)
                log_dets.append(log_det)
        return t

    def decode_into(self, log_dets: list[Tensor], z: Tensor, context: Tensor | None) -> Tensor:
        """t, likewise."""
        for layer in reversed(self.layers):
            if isinstance(layer, Chain):
                z = layer.decode_into(log_dets, z, context)
            else:
                z, log_det = layer.decode(z, context)
                log_dets.append(log_det)
        return z

    @torch.no_grad()
    def initialize(self, t: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            t = layer.initialize(t, context)
        return t


def summed(log_dets: Sequence[Tensor], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The sum of log-determinants, each (B,), in ``dtype`` or that of ``like``, whose batch it is.

    It is worked out in float64: those of a deep flow are thousands of nats, of which float32 loses
    up to 2.4e-4 with every term that is added.
    """
    if not log_dets:
        return like.new_zeros(like.shape[0], dtype=dtype)
    return torch.stack(tuple(log_dets)).sum(0, dtype=torch.float64).to(dtype or like.dtype)


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
