"""The step of Glow and a stack of them: what both flows, and the z-flow, are made of."""

from __future__ import annotations

import torch

from .actnorm import ActNorm
from .coupling import Coupling
from .layer import Chain, Invertible
from .shuffle import Shuffle

__all__ = ["FlowStep", "StepFlow"]


class FlowStep(Chain):
    """ActNorm, fixed shuffle, affine coupling (design, section 3).

    With 2 channels a random shuffle may do nothing, so the halves alternate by ``index`` instead;
    with 1 channel there is nothing to couple, and ActNorm is all of it.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        generator: torch.Generator,
        *,
        index: int,
        spatial: bool,
        context: int = 0,
        volume_preserving: bool = False,
    ) -> None:
        layers: list[Invertible] = [ActNorm(channels, volume_preserving=volume_preserving)]
        if channels > 2:
            layers.append(Shuffle(channels, generator))
        if channels > 1:
            layers.append(
                Coupling(
                    channels,
                    width,
                    generator,
                    spatial=spatial,
                    flip=channels == 2 and index % 2 == 1,
                    additive=volume_preserving,
                    context=context,
                )
            )
        super().__init__(layers)


class StepFlow(Chain):
    """``steps`` steps of one shape: the z-flow on maps, the flow on codes on vectors.

    Args:
        channels: C of (B, C, H, W) if ``spatial``, of (B, C) if not.
        steps: number of steps.
        width: hidden width of the coupling networks.
        context: channels of what every coupling sees, a map if ``spatial`` and a vector if not, 0
            for none.
        volume_preserving: additive couplings and ActNorm with biases only, log-determinant 0.
    """

    def __init__(
        self,
        channels: int,
        steps: int,
        width: int,
        generator: torch.Generator,
        *,
        spatial: bool,
        context: int = 0,
        volume_preserving: bool = False,
    ) -> None:
        super().__init__(
            FlowStep(
                channels,
                width,
                generator,
                index=index,
                spatial=spatial,
                context=context,
                volume_preserving=volume_preserving,
            )
            for index in range(steps)
        )
        self.channels = channels
