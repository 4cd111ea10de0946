"""The multi-scale image flow (Glow; Section 3 and Appendix B of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layer import Invertible, check_batch, summed
from .squeeze import Squeeze, depth_to_space, space_to_depth
from .step import StepFlow

__all__ = ["ImageFlow"]


class ImageFlow(Invertible):
    """L levels of (squeeze, S steps, factor out half), all of ``z`` on one map.

    For 3×32×32 and L = 3::

        t (B, 3, 32, 32)
        level 1  squeeze → (B, 12, 16, 16)  S steps  half out (B, 6, 16, 16) ─ by 4 → (B, 96, 4, 4)
        level 2  squeeze → (B, 24, 8, 8)    S steps  half out (B, 12, 8, 8)  ─ by 2 → (B, 48, 4, 4)
        level 3  squeeze → (B, 48, 4, 4)    S steps  all of it ─────────────────────→ (B, 48, 4, 4)
        z (B, 192, 4, 4), finest level first

    The base of every factored-out half is N(0, I), as of the rest, so ``encode`` returns all of
    ``z`` as (B, C·4^L, H/2^L, W/2^L) and there is no learned split prior (design, section 3).

    Args:
        shape: (C, H, W), both sides multiples of 2^levels.
        levels, steps, width: L, S and the hidden width of the couplings.
        generator: draws shuffles and first weights.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        levels: int,
        steps: int,
        width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        side = 2**levels
        if levels < 1 or height % side or breadth % side:
            raise ValueError(
                f"both sides of {height}×{breadth} must be multiples of 2^levels = {side}"
            )
        self.shape = (channels, height, breadth)
        self.latent_shape = (channels * side**2, height // side, breadth // side)
        self.squeeze = Squeeze()
        self.levels = nn.ModuleList()
        for level in range(levels):
            self.levels.append(StepFlow(channels * 4, steps, width, generator, spatial=True))
            channels = channels * 4 if level == levels - 1 else channels * 2
        # How many channels of z each level fills, finest first.
        whole = self.latent_shape[0]
        shares = [whole >> (level + 1) for level in range(levels - 1)]
        self.level_channels = (*shares, whole - sum(shares))

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det, _ = self.encode_levels(t, context)
        return z, log_det

    def encode_levels(
        self, t: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(z, log|det ∂z/∂t|, the same of each level's steps, (B, L), finest first).

        What a level factors out is ``z.split(flow.level_channels, 1)``.
        """
        check_batch("t", t, self.shape)
        parts: list[Tensor] = []
        by_level: list[Tensor] = []
        for level, steps in enumerate(self.levels):
            t, _ = self.squeeze.encode(t)
            log_dets: list[Tensor] = []
            t = steps.encode_into(log_dets, t, context)
            by_level.append(summed(log_dets, t, torch.float64))
            t = self.factor_out(t, level, parts)
        levels = torch.stack(by_level, 1)
        return torch.cat(parts, dim=1), levels.sum(1).to(t.dtype), levels.to(t.dtype)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_batch("z", z, self.latent_shape)
        parts = list(z.split(self.level_channels, dim=1))
        t, log_dets = parts.pop(), []
        for level in reversed(range(len(self.levels))):
            t = self.levels[level].decode_into(log_dets, t, context)
            t, _ = self.squeeze.decode(t)
            if level:
                out = depth_to_space(parts.pop(), self.factor(level - 1))
                t = torch.cat((out, t), dim=1)
        return t, summed(log_dets, z)

    @torch.no_grad()
    def initialize(self, t: Tensor, context: Tensor | None = None) -> Tensor:
        check_batch("t", t, self.shape)
        parts: list[Tensor] = []
        for level, steps in enumerate(self.levels):
            t = steps.initialize(self.squeeze.encode(t)[0], context)
            t = self.factor_out(t, level, parts)
        return torch.cat(parts, dim=1)

    def factor_out(self, t: Tensor, level: int, parts: list[Tensor]) -> Tensor:
        """Puts level's share into ``parts`` and returns what goes on to the next level."""
        if level == len(self.levels) - 1:
            parts.append(t)
            return t
        out, rest = t.chunk(2, dim=1)
        parts.append(space_to_depth(out, self.factor(level)))
        return rest

    def factor(self, level: int) -> int:
        """The space-to-depth that brings a level's share to the last level's map."""
        return 2 ** (len(self.levels) - 1 - level)
