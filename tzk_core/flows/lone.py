"""A coupling's network for one observation at a time, on a CPU in float32.

A batch of one is too little work for oneDNN's fused layers, whose every call takes tens of µs
whatever it multiplies. With one thread plain layers take less up to the width :data:`LONE_WIDTH`
(docs/performance.md); with several torch itself has other kernels, which are not faster. At this
size every pass over the elements that is left out counts, too::

    (1, I, H, W) ─ 3×3 ─ SiLU ─ 1×1 as a product (W, W)·(W, HW) ─ SiLU ─ 3×3 ─ m, r (1, M, H, W)
    log σ(s + 2), bent  =  −6 tanh(softplus(−s − 2) / 6)  =  6 − 12 σ(softplus₃(r)),
    r = −(s + 2) / 3,  softplus₃(r) = log(1 + e^{3r}) / 3

where r, not s, is what the last layer's weights here give. It is what
:mod:`tzk_core.flows.prepared` works out, with other last bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, silu, softplus

from ..networks import CouplingNetwork
from .coupling import FLOOR

__all__ = ["LONE_WIDTH", "lone_network"]

LONE_WIDTH = 160
"""The widest networks that are faster so: at 64 1.5 times, at 160 1.1, at 192 hardly."""

BETA = FLOOR / 2
LINEAR = 40.0  # from where softplus is its argument to the last bit

ShiftAndLogScale = tuple[Tensor, Tensor]


def lone_network(network: CouplingNetwork) -> Callable[[Tensor], ShiftAndLogScale] | None:
    """(1, I, H, W) → shift and log-scale, each (1, M, H, W); ``None`` where that gains nothing.

    Args:
        network: on maps, of an affine coupling without a context; its weights are copied.
    """
    if not _gains(network):
        return None
    width = len(network.middle.weight)
    layers = (network.first, network.middle, network.last)
    contiguous = torch.contiguous_format
    weights = [layer.weight.detach().clone(memory_format=contiguous) for layer in layers]
    biases = [layer.bias.detach().clone() for layer in layers]
    weights[2].chunk(2)[1].div_(-BETA)
    biases[2].chunk(2)[1].add_(2.0).div_(-BETA)
    first, _, last = zip(weights, biases, strict=True)
    middle, bias = weights[1].view(width, width), biases[1].unsqueeze(1)
    top = torch.tensor(FLOOR)  # of a number, torch would make a tensor every time

    def alone(x: Tensor) -> ShiftAndLogScale:
        hidden = silu(conv2d(x, *first, padding=1), inplace=True)
        product = torch.addmm(bias, middle, hidden.reshape(width, -1))
        hidden = silu(product, inplace=True).view_as(hidden)
        shift, r = conv2d(hidden, *last, padding=1).chunk(2, dim=1)
        return shift, torch.sub(top, softplus(r, BETA, LINEAR).sigmoid_(), alpha=2 * FLOOR)

    return alone


def _gains(network: CouplingNetwork) -> bool:
    dtype = network.first.weight.dtype
    exact = dtype == torch.float32 and network.dtype in (None, dtype)
    return exact and len(network.middle.weight) <= LONE_WIDTH and torch.get_num_threads() == 1
