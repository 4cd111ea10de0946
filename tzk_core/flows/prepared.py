"""The image flow made ready for scoring and sampling on a CPU: the same numbers in fewer passes.

What the layers work out at every call is worked out once: scales of ActNorm, inverse permutations,
weights in the precision and the blocked layout in which oneDNN multiplies. Within a step ActNorm
and the shuffle are one selection and two updates in place, SiLU is applied while a convolution's
result is still in a register, and the moved half is updated where it is instead of being joined
again. The transforms stay in the observation's precision and in (B, C, H, W); the networks run
channels-last (docs/performance.md has what each is worth).

With ``lone=True`` and one thread a batch of one goes through narrow networks in another way, 1.5
times as fast (:mod:`tzk_core.flows.lone`). That is for who asks for one observation at a time. What
serves leaves it off: there a row has the same bits in a batch of any size, and a size at which it
has others would be filled up to a larger one (:mod:`tzk_core.service.sizes`).

It is a snapshot: after a change of the weights, or of the networks' precision, prepare again. The
plain modules are the truth that it is tested against.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, logsigmoid, silu

from ..networks import CouplingNetwork
from .actnorm import ActNorm
from .coupling import FLOOR, Coupling
from .image import ImageFlow
from .layer import check_batch, summed
from .lone import lone_network
from .shuffle import Shuffle
from .squeeze import depth_to_space, space_to_depth
from .step import FlowStep

__all__ = ["Prepared"]

BATCH = 32  # that the blocked layout of weights is chosen for; any other runs as well


class Prepared:
    """``encode`` and ``decode`` of an image flow on a CPU, without gradients.

    Args:
        flow: whose weights are copied, its networks in the precision that they run in now.
        lone: whether a batch of one may have other last bits than the same row of a larger batch,
            where that is faster; such networks' weights are copied once more.

    Raises:
        ValueError: the flow is not on a CPU.
    """

    @torch.no_grad()
    def __init__(self, flow: ImageFlow, *, lone: bool = False) -> None:
        like = next(flow.parameters())
        if like.device.type != "cpu":
            raise ValueError(f"a flow is prepared for the CPU, and this one is on {like.device}")
        self.flow, self.dtype = flow, like.dtype
        sides = [(flow.shape[1] >> n, flow.shape[2] >> n) for n in range(1, len(flow.levels) + 1)]
        self.levels = [
            [_Step(step, side, lone) for step in steps.layers]
            for steps, side in zip(flow.levels, sides, strict=True)
        ]
        # Of each level's ActNorms, which no observation changes.
        self.log_dets = torch.tensor(
            [
                sum(step.log_det for step in steps) * high * wide
                for steps, (high, wide) in zip(self.levels, sides, strict=True)
            ],
            dtype=torch.float64,
        )
        # The flow's own, whatever takes their place.
        self.plain_encode, self.plain_decode = flow.encode_levels, flow.decode

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(z, log|det ∂z/∂t|), as the flow's own."""
        return self.encode_levels(t, context)[:2]

    @torch.no_grad()
    def encode_levels(
        self, t: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(z, log|det ∂z/∂t|, the same by level), as the flow's own."""
        check_batch("t", t, self.flow.shape)
        if not self._takes(t):
            return self.plain_encode(t, context)
        parts: list[Tensor] = []
        by_level: list[Tensor] = []
        for level, steps in enumerate(self.levels):
            t = space_to_depth(t, 2)
            log_dets: list[Tensor] = []
            for step in steps:
                t = step.encode(t, log_dets)
            by_level.append(summed(log_dets, t, torch.float64))
            t = self.flow.factor_out(t, level, parts)
        levels = torch.stack(by_level, 1) + self.log_dets
        return torch.cat(parts, dim=1), levels.sum(1).to(t.dtype), levels.to(t.dtype)

    @torch.no_grad()
    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(t, log|det ∂t/∂z|), as the flow's own."""
        check_batch("z", z, self.flow.latent_shape)
        if not self._takes(z):
            return self.plain_decode(z, context)
        parts = list(z.split(self.flow.level_channels, dim=1))
        log_dets: list[Tensor] = []
        t = parts.pop().clone()  # the steps write into what they are given
        for level in reversed(range(len(self.levels))):
            for step in reversed(self.levels[level]):
                t = step.decode(t, log_dets)
            t = depth_to_space(t, 2)
            if level:
                out = depth_to_space(parts.pop(), self.flow.factor(level - 1))
                t = torch.cat((out, t), dim=1)
        total = summed(log_dets, t, torch.float64) + self.log_dets.sum()
        return t, -total.to(t.dtype)

    def _takes(self, x: Tensor) -> bool:
        return bool(len(x)) and x.dtype == self.dtype and x.device.type == "cpu"


class _Step:
    """ActNorm, shuffle and affine coupling of maps of one size."""

    def __init__(self, step: FlowStep, side: tuple[int, int], lone: bool) -> None:
        actnorm, shuffle, coupling = step.layers
        if not (
            isinstance(actnorm, ActNorm)
            and isinstance(shuffle, Shuffle)
            and isinstance(coupling, Coupling)
            and not (coupling.flip or coupling.additive or actnorm.log_scale is None)
        ):
            raise ValueError("a step is prepared if it is ActNorm, shuffle and affine coupling")
        self.sizes = coupling.sizes
        self.network = _network(coupling.network, side)
        self.alone = lone_network(coupling.network) if lone else None
        self.forwards = shuffle.permutation.clone()
        self.backwards = self.forwards.argsort()
        self.log_det = actnorm.log_scale.sum(dtype=torch.float64).item()  # at every position
        bias, log_scale = (p.reshape(1, -1, 1, 1) for p in (actnorm.bias, actnorm.log_scale))
        self.bias, self.shrink = bias.clone(), (-log_scale).exp()
        # ActNorm is applied to channels that are shuffled already.
        self.bias_after = bias[:, self.forwards].clone()
        self.scale_after = log_scale.exp()[:, self.forwards].clone()

    def encode(self, t: Tensor, log_dets: list[Tensor]) -> Tensor:
        t = t.index_select(1, self.forwards)
        t.add_(self.bias_after).mul_(self.scale_after)
        still, moved = t.split(self.sizes, 1)
        shift, log_scale = self._shift_and_log_scale(still)
        log_dets.append(log_scale.sum((1, 2, 3)))
        moved.add_(shift).mul_(log_scale.exp_())
        return t

    def decode(self, z: Tensor, log_dets: list[Tensor]) -> Tensor:
        still, moved = z.split(self.sizes, 1)
        shift, log_scale = self._shift_and_log_scale(still)
        log_dets.append(log_scale.sum((1, 2, 3)))
        moved.mul_(log_scale.neg_().exp_()).sub_(shift)
        return z.index_select(1, self.backwards).mul_(self.shrink).sub_(self.bias)

    def _shift_and_log_scale(self, still: Tensor) -> tuple[Tensor, Tensor]:
        if self.alone is not None and len(still) == 1:
            return self.alone(still)
        shift, raw = self.network(still).contiguous().to(still.dtype).chunk(2, dim=1)
        # −6 tanh(y) = 12 σ(−2y) − 6; torch's tanh takes five times as long as its sigmoid.
        bent = logsigmoid(raw.add_(2.0)).mul_(2 / FLOOR).sigmoid_()
        return shift, bent.mul_(2 * FLOOR).sub_(FLOOR)


def _network(network: CouplingNetwork, side: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """The network as a function, (B, I, H, W) → (B, O, H, W), its weights ready to multiply."""
    dtype = network.dtype or network.first.weight.dtype
    layers = (network.first, network.middle, network.last)
    weights = [
        layer.weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)
        for layer in layers
    ]
    biases = [layer.bias.detach().to(dtype, copy=True) for layer in layers]
    if _fused(dtype):
        return _blocked(weights, biases, side)
    first, middle, last = zip(weights, biases, strict=True)

    def plain(x: Tensor) -> Tensor:
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        hidden = silu(conv2d(x, *first, padding=1), inplace=True)
        hidden = silu(conv2d(hidden, *middle), inplace=True)
        return conv2d(hidden, *last, padding=1)

    return plain


def _blocked(
    weights: list[Tensor], biases: list[Tensor], side: tuple[int, int]
) -> Callable[[Tensor], Tensor]:
    """As ``plain`` above by oneDNN's fused layers, which torch's own compiler calls as well."""
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    multiply = torch.ops.mkldnn._linear_pointwise.default
    dtype, width = weights[0].dtype, len(weights[0])
    ones = [1, 1]

    def blocked(weight: Tensor) -> Tensor:
        shape = [BATCH, weight.shape[1], *side]
        return torch.ops.mkldnn._reorder_convolution_weight(weight, ones, ones, ones, 1, shape)

    first, last = blocked(weights[0]), blocked(weights[2])
    middle = torch.ops.mkldnn._reorder_linear_weight(
        weights[1].reshape(width, width).contiguous(), BATCH * side[0] * side[1]
    )

    def fused(x: Tensor) -> Tensor:
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        hidden = convolve(x, first, biases[0], ones, ones, ones, 1, "swish", [], "")
        batch, _, high, wide = hidden.shape
        # The 1×1 convolution is a matrix product of channels-last positions.
        hidden = hidden.permute(0, 2, 3, 1).reshape(-1, width)
        hidden = multiply(hidden, middle, biases[1], "swish", [], "")
        hidden = hidden.view(batch, high, wide, width).permute(0, 3, 1, 2)
        return convolve(hidden, last, biases[2], ones, ones, ones, 1, "none", [], "")

    return fused


def _fused(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the fused layers in ``dtype``."""
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32
