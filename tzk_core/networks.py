"""Plain networks, not invertible: inside couplings, from observations to codes and back.

Every layer is made by :func:`linear` or :func:`convolution`, which draw their first weights from
a generator that was passed in and leave the global one alone. The non-linearity is SiLU
(= swish, Section 3 of the paper); last layers start at zero (Appendix B).

A network can run in bfloat16 (:func:`run_networks_in`): its weights and what goes in and out stay
as they are, so that the invertible arithmetic around it keeps its precision.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.nn.utils import skip_init

__all__ = [
    "CouplingNetwork",
    "ImageTrunk",
    "MapHead",
    "Network",
    "VectorTrunk",
    "convolution",
    "linear",
    "run_networks_in",
]


class Network(nn.Module):
    """A plain network; ``compute`` says in it what happens, in whatever precision.

    ``dtype`` is an attribute of each network and not of the thread: what is worked out again on the
    way back (activation checkpointing) runs in threads of autograd.
    """

    dtype: torch.dtype | None = None  # None: that of the weights

    def forward(self, x: Tensor, *context: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        """(B, …) → (B, …), one tensor or several, in the dtype of ``x``."""
        if self.dtype is None:
            return self.compute(x, *context)
        with torch.autocast(x.device.type, dtype=self.dtype):
            found = self.compute(x, *context)
        if isinstance(found, Tensor):
            return found.to(x.dtype)
        return tuple(each.to(x.dtype) for each in found)

    def compute(self, x: Tensor, *context: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} computes nothing")


def run_networks_in(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Lets every network within ``model`` run in ``dtype``, or again as its weights are."""
    for module in model.modules():
        if isinstance(module, Network):
            module.dtype = dtype


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, zero: bool = False, bias: bool = True
) -> nn.Linear:
    """A linear layer, its weights U(−b, b) with b = 1/√inputs, or zero."""
    layer = skip_init(nn.Linear, inputs, outputs, bias=bias)
    return _fill(layer, inputs, generator, zero)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    generator: torch.Generator,
    *,
    zero: bool = False,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution that keeps the size, filled like :func:`linear`; ``kernel`` is odd."""
    layer = skip_init(nn.Conv2d, inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    # The layout of the weights decides that of the output: a step of a narrow flow takes 0.7 of
    # the time so (docs/decisions.md).
    layer.to(memory_format=torch.channels_last)
    return _fill(layer, inputs * kernel**2, generator, zero)


def _fill(layer, fan_in: int, generator: torch.Generator, zero: bool):
    bound = 0.0 if zero else 1 / math.sqrt(max(fan_in, 1))
    with torch.no_grad():
        for parameter in layer.parameters():
            # The draw happens on the generator's own device and in float32, so that a seed gives
            # the same weights whatever the default device or dtype is.
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.copy_((2 * drawn - 1) * bound)
    return layer


class CouplingNetwork(Network):
    """What a coupling computes its shift and scale with (design, section 3).

    ::

        map    (B, I, H, W) ── 3×3 ── SiLU ── 1×1 ── SiLU ── 3×3, zero ── (B, O, H, W)
        vector (B, I) ──────── linear ─ SiLU ─ linear ─ SiLU ─ linear, zero ── (B, O)

    A context, a map (B, K, H, W) or a vector (B, K) as the rest, is added to the first layer's
    output through a linear map of its own (1×1).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        generator: torch.Generator,
        *,
        spatial: bool,
        context: int = 0,
    ) -> None:
        super().__init__()
        if spatial:
            self.first = convolution(inputs, width, 3, generator)
            self.middle = convolution(width, width, 1, generator)
            self.last = convolution(width, outputs, 3, generator, zero=True)
        else:
            self.first = linear(inputs, width, generator)
            self.middle = linear(width, width, generator)
            self.last = linear(width, outputs, generator, zero=True)
        self.context = None
        if context and spatial:
            self.context = convolution(context, width, 1, generator, bias=False)
        elif context:
            self.context = linear(context, width, generator, bias=False)

    def compute(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.context is not None:
            if context is None:
                raise ValueError("this network was made for a context, and none was passed")
            hidden = hidden + self.context(context)
        return self.last(silu(self.middle(silu(hidden))))


class ImageTrunk(Network):
    """From an image to a vector: 3×3 convolutions alternating with squeezes (Appendix B).

    ::

        (B, C, H, W) ─ [squeeze, 3×3 to width, SiLU] × levels ─ (B, width, H/2^L, W/2^L)
            head "flatten": all of it ── linear ── (B, outputs)
            head "pool":    mean over positions ── linear ── (B, outputs)

    ``paper=True`` is the paper's order, which convolves at full size before the first squeeze.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        width: int,
        generator: torch.Generator,
        *,
        levels: int = 3,
        head: str = "flatten",
        paper: bool = False,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.stem = convolution(channels, width, 3, generator) if paper else None
        channels = width if paper else channels
        self.convolutions = nn.ModuleList()
        for _ in range(levels):
            self.convolutions.append(convolution(4 * channels, width, 3, generator))
            channels = width
        self.head = head
        positions = (height >> levels) * (breadth >> levels) if head == "flatten" else 1
        self.last = linear(width * positions, outputs, generator, zero=True)

    def compute(self, t: Tensor) -> Tensor:
        hidden = t if self.stem is None else silu(self.stem(t))
        for layer in self.convolutions:
            hidden = silu(layer(_squeeze(hidden)))
        hidden = hidden.mean((2, 3)) if self.head == "pool" else hidden.flatten(1)
        return self.last(hidden)


def _squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 4C, H/2, W/2); torch's own gives a batch of none back in its old shape."""
    if x.shape[0]:  # not len(x), which an export takes for a fixed number
        return nn.functional.pixel_unshuffle(x, 2)
    return x.reshape(0, 4 * x.shape[1], x.shape[2] // 2, x.shape[3] // 2)


class VectorTrunk(Network):
    """From a vector to a vector: two hidden linear layers with SiLU, (B, I) → (B, O)."""

    def __init__(self, inputs: int, outputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(inputs, width, generator)
        self.middle = linear(width, width, generator)
        self.last = linear(width, outputs, generator, zero=True)

    def compute(self, x: Tensor) -> Tensor:
        return self.last(silu(self.middle(silu(self.first(x)))))


class MapHead(Network):
    """From a code to a map (Appendix B, the regressors c → z).

    ::

        (B, C) ── [linear, SiLU] × hidden ── linear ── SiLU ── (B, stem, H, W)
               ── [3×3, SiLU] × layers ── features (B, width, H, W) ── 3×3, zero ── (B, O, H, W)

    Args:
        hidden: widths of linear layers before the one that makes a map of the code; the paper has
            none.
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, int, int],
        width: int,
        generator: torch.Generator,
        *,
        stem: int,
        layers: int = 3,
        hidden: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        outputs, height, breadth = shape
        self.shape = (stem, height, breadth)
        sizes = [inputs, *hidden, stem * height * breadth]
        self.linears = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(sizes))
        widths = [stem] + [width] * layers
        self.convolutions = nn.ModuleList(
            convolution(a, b, 3, generator) for a, b in pairwise(widths)
        )
        self.last = convolution(widths[-1], outputs, 3, generator, zero=True)

    def compute(self, c: Tensor) -> tuple[Tensor, Tensor]:
        hidden = c
        for layer in self.linears:
            hidden = silu(layer(hidden))
        features = hidden.reshape(-1, *self.shape)
        for layer in self.convolutions:
            features = silu(layer(features))
        return self.last(features), features
