"""The weights of a step, and the codes that it draws: of the whole batch, whatever part is here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .config import ObjectiveConfig
from .terms import Part

if TYPE_CHECKING:
    from ..knowledge import Knowledge

__all__ = ["FixedNoise", "Weights", "prior_codes"]


class FixedNoise:
    """N(0, 1) that was drawn before, handed out in the order in which it is asked for.

    Args:
        drawn: all of it in one row, or None to find out how much is asked for (and give zeros).
    """

    def __init__(self, drawn: Tensor | None = None) -> None:
        self.drawn, self.used = drawn, 0

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The next of it, of this shape."""
        count, first = math.prod(shape), self.used
        self.used += count
        if self.drawn is None:
            return like.new_zeros(shape)
        return self.drawn[first : self.used].reshape(shape)


@dataclass
class Weights:
    config: ObjectiveConfig
    kl: float | Tensor
    discriminator: float | Tensor
    generator: torch.Generator | FixedNoise

    def normal(self, like: Tensor, rows: Part) -> Tensor:
        """Noise for the rows that are here, drawn for all."""
        return self.whole_normal(like, rows)[rows.here]

    def whole_normal(self, like: Tensor, rows: Part) -> Tensor:
        shape = (rows.count, *like.shape[1:])
        if isinstance(self.generator, FixedNoise):
            return self.generator.normal(shape, like)
        return torch.randn(shape, generator=self.generator, dtype=like.dtype).to(like.device)

    def from_encoder(self) -> bool:
        """Whether this batch's codes come from the encoder (always, for elbo)."""
        if self.config.name == "elbo":
            return True
        return bool(torch.rand((), generator=self.generator) < self.config.encoder_fraction)


def prior_codes(kind: Knowledge, value: int, weights: Weights, like: Tensor, rows: Part) -> Tensor:
    """Codes from p_dec(c), or from p_dec(c|e) by acceptance, for the rows that are here.

    Acceptance looks at the codes of all rows: how many draws it takes must not depend on the part.
    """
    c = kind.code_prior.transform(weights.whole_normal(like, rows))
    if weights.config.prior_codes == "prior":
        return c[rows.here]
    waiting = torch.ones(len(c), dtype=torch.bool, device=c.device)
    for _ in range(64):
        with torch.no_grad():
            p = kind.c_discriminator.log_prob(c, value).exp()
        u = torch.rand(p.shape, generator=weights.generator, dtype=p.dtype).to(p.device)
        # Who was accepted stays: asked again, rare codes would be refused too often.
        waiting = waiting & (u >= p)
        if not waiting.any():
            break
        fresh = kind.code_prior.transform(weights.whole_normal(like, rows))
        c = torch.where(waiting.unsqueeze(1), fresh, c)
    return c[rows.here]
