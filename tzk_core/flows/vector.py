"""The vector flow: codes, and the observations of a child TzK."""

from __future__ import annotations

import torch
from torch import Tensor

from .layer import check_batch
from .step import StepFlow

__all__ = ["VectorFlow"]


class VectorFlow(StepFlow):
    """Glow's step on (B, C), with linear networks and no squeeze (design, section 3).

    Any C ≥ 1; see :class:`~tzk_core.flows.step.FlowStep` for what C = 1 and C = 2 mean.
    """

    def __init__(
        self,
        channels: int,
        *,
        steps: int,
        width: int,
        generator: torch.Generator,
        context: int = 0,
        volume_preserving: bool = False,
    ) -> None:
        super().__init__(
            channels,
            steps,
            width,
            generator,
            spatial=False,
            context=context,
            volume_preserving=volume_preserving,
        )
        self.shape = self.latent_shape = (channels,)
        self.level_channels = (channels,)

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_batch("t", t, self.shape)
        return super().encode(t, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_batch("z", z, self.latent_shape)
        return super().decode(z, context)
