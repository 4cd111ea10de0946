"""Every invertible layer and flow, each as a factory: one registry, put through every check.

Parameters are perturbed by a generator that is passed in. Last layers start at zero, and a coupling
that does nothing would pass every test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.flows import (
    ActNorm,
    Chain,
    Coupling,
    FlowStep,
    ImageFlow,
    Invertible,
    Shuffle,
    Squeeze,
    StepFlow,
    VectorFlow,
)

__all__ = ["CASES", "Case", "perturb"]

# Of the perturbation: large enough that every parameter matters, and small enough that the inverse
# of what lies ten standard deviations from the mode does not overflow in any implementation.
SPREAD = 0.05


@dataclass(frozen=True)
class Case:
    """One layer or flow, of one shape."""

    name: str
    shape: tuple[int, ...]  # of one observation
    make: Callable[[torch.Generator], Invertible]
    context: int = 0  # channels of the context, a map or a vector as t is; 0 for none
    volume_preserving: bool = False

    def __str__(self) -> str:
        return self.name

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> Invertible:
        """A fresh one, its parameters away from their starting values."""
        generator = torch.Generator().manual_seed(seed)
        return perturb(self.make(generator), generator).to(dtype)

    def inputs(
        self, batch: int, dtype: torch.dtype = torch.float64, scale: float = 1.0, seed: int = 1
    ) -> tuple[Tensor, Tensor | None]:
        """(t, context) of so many observations, normal with standard deviation ``scale``."""
        generator = torch.Generator().manual_seed(seed)
        t = scale * torch.randn(batch, *self.shape, generator=generator, dtype=dtype)
        if not self.context:
            return t, None
        shape = (batch, self.context, *self.shape[1:])
        return t, torch.randn(shape, generator=generator, dtype=dtype)


def perturb(module, generator: torch.Generator, spread: float = SPREAD):
    """Adds normal noise to every parameter, in place; returns the module."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(spread * noise.to(parameter))
    return module


def _coupling(channels: int, *, spatial: bool, **options) -> Callable:
    return lambda g: Coupling(channels, 6, g, spatial=spatial, **options)


def _step(channels: int, *, spatial: bool, index: int = 0, **options) -> Callable:
    return lambda g: FlowStep(channels, 6, g, index=index, spatial=spatial, **options)


def _image(shape: tuple[int, int, int], levels: int) -> Case:
    name = f"image-{'x'.join(map(str, shape))}-levels-{levels}"
    return Case(
        name, shape, lambda g: ImageFlow(shape, levels=levels, steps=2, width=6, generator=g)
    )


def _vector(channels: int, **options) -> Callable:
    return lambda g: VectorFlow(channels, steps=3, width=8, generator=g, **options)


CASES = [
    Case("actnorm-map", (3, 4, 2), lambda g: ActNorm(3)),
    Case("actnorm-vector", (5,), lambda g: ActNorm(5)),
    Case(
        "actnorm-volume-map",
        (3, 4, 2),
        lambda g: ActNorm(3, volume_preserving=True),
        volume_preserving=True,
    ),
    Case(
        "actnorm-volume-vector",
        (5,),
        lambda g: ActNorm(5, volume_preserving=True),
        volume_preserving=True,
    ),
    Case("shuffle-map", (7, 2, 4), lambda g: Shuffle(7, g), volume_preserving=True),
    Case("shuffle-vector", (7,), lambda g: Shuffle(7, g), volume_preserving=True),
    Case("squeeze-2", (3, 4, 6), lambda g: Squeeze(), volume_preserving=True),
    Case("squeeze-3", (2, 3, 6), lambda g: Squeeze(3), volume_preserving=True),
    *(
        Case(
            f"coupling-{'map' if spatial else 'vector'}-{channels}{label}",
            (channels, 3, 4) if spatial else (channels,),
            _coupling(channels, spatial=spatial, **options),
            context=options.get("context", 0),
            volume_preserving=options.get("additive", False),
        )
        for spatial in (True, False)
        for channels in (2, 4, 5)
        for label, options in (
            ("", {}),
            ("-flip", {"flip": True}),
            ("-additive", {"additive": True}),
            ("-additive-flip", {"additive": True, "flip": True}),
            ("-context", {"context": 3}),
        )
    ),
    *(
        Case(
            f"step-{'map' if spatial else 'vector'}-{channels}-{index}",
            (channels, 2, 3) if spatial else (channels,),
            _step(channels, spatial=spatial, index=index),
        )
        for spatial in (True, False)
        for channels in (1, 2, 3)
        for index in (0, 1)
    ),
    Case(
        "step-volume",
        (3,),
        _step(3, spatial=False, volume_preserving=True),
        volume_preserving=True,
    ),
    Case("steps-map", (4, 2, 3), lambda g: StepFlow(4, 3, 6, g, spatial=True)),
    Case(
        "steps-map-context",
        (4, 2, 3),
        lambda g: StepFlow(4, 3, 6, g, spatial=True, context=2),
        context=2,
    ),
    Case(
        "steps-none",
        (4, 2, 3),
        lambda g: StepFlow(4, 0, 6, g, spatial=True),
        volume_preserving=True,
    ),
    Case("chain", (4,), lambda g: Chain([ActNorm(4), Shuffle(4, g), ActNorm(4)])),
    *(
        _image((channels, *sides), levels)
        for channels in (1, 3)
        for levels, sides in ((1, (4, 8)), (2, (4, 8)), (3, (8, 16)))
    ),
    _image((1, 2, 2), 1),
    *(Case(f"vector-{channels}", (channels,), _vector(channels)) for channels in (1, 2, 3, 10)),
    Case("vector-context", (3,), _vector(3, context=2), context=2),
    *(
        Case(
            f"vector-volume-{channels}",
            (channels,),
            _vector(channels, volume_preserving=True),
            volume_preserving=True,
        )
        for channels in (1, 2, 5)
    ),
]
