"""One step of a flow on maps, forwards and back by hand: what a CPU trains with.

Autograd on the plain layers keeps some thirty maps a step and walks back through as many small
passes. Written by hand the way back is the matrix products, two passes for SiLU and a dozen
updates in place. The numbers are the plain layers' but for rounding, which are what it is tested
against and what runs wherever this cannot (:func:`fusible`).

::

    y = (t + b) e^s, shuffled          a, m = halves of y          shift, raw = network(a)
    log_scale = 12 σ(log σ(raw + 2) / 3) − 6  (= −6 tanh(−log σ(raw + 2) / 6))
    z = (a, (m + shift) e^log_scale)   log_det = Σ log_scale
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, linear, logsigmoid, silu

from .actnorm import ActNorm
from .coupling import FLOOR, Coupling
from .layer import Invertible
from .shuffle import Shuffle

__all__ = ["fused_step", "fusible"]

CHANNELS_LAST = torch.channels_last
SILU = torch.ops.aten.silu.out
SILU_BACK = torch.ops.aten.silu_backward.grad_input


def fusible(layers: list[Invertible], t: Tensor, context: Tensor | None) -> bool:
    """Whether :func:`fused_step` can encode ``t`` with a step of these layers, and should.

    It should where there is a way back, on a CPU. It has no second derivative, and transforms of
    functions (``torch.vmap`` and the like), exports and compilers need the plain layers.
    """
    if not (torch.is_grad_enabled() and t.ndim == 4 and t.device.type == "cpu" and t.numel()):
        return False
    if context is not None or len(layers) != 3:
        return False
    actnorm, shuffle, coupling = layers
    return (
        type(actnorm) is ActNorm
        and type(shuffle) is Shuffle
        and type(coupling) is Coupling
        and actnorm.log_scale is not None
        and not (coupling.flip or coupling.additive)
        and t.shape[1] == shuffle.channels
        and t.dtype == actnorm.bias.dtype
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def fused_step(
    actnorm: ActNorm, shuffle: Shuffle, coupling: Coupling, t: Tensor
) -> tuple[Tensor, Tensor]:
    """(z, the coupling's log-determinant); ActNorm's is left to it."""
    network = coupling.network
    return _Step.apply(
        t,
        actnorm.bias,
        actnorm.log_scale,
        shuffle.permutation,
        network.dtype or network.first.weight.dtype,
        coupling.recompute,
        *(p for layer in (network.first, network.middle, network.last) for p in _pair(layer)),
    )


def _pair(layer: torch.nn.Conv2d) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t, bias, log_scale, permutation, dtype, recompute, *weights):
        column = (-1, 1, 1)
        z = t.index_select(1, permutation)
        z.add_(bias[permutation].view(column)).mul_(log_scale[permutation].exp().view(column))
        moved = z.shape[1] // 2
        still, half = z.split((z.shape[1] - moved, moved), 1)
        x = still.to(dtype).contiguous(memory_format=CHANNELS_LAST)
        cast = [one.to(dtype) for one in weights]
        out, kept = _network(x, cast)
        shift, raw = out.contiguous().to(z.dtype).chunk(2, 1)
        raw.add_(2.0)
        bent = logsigmoid(raw).mul_(2 / FLOOR).sigmoid_()
        log_scales = (2 * FLOOR * bent).sub_(FLOOR)
        log_det = log_scales.sum((1, 2, 3))
        growth = log_scales.exp_()
        half.add_(shift).mul_(growth)
        ctx.recompute = recompute
        ctx.save_for_backward(
            t, bias, log_scale, permutation, z, raw, bent, growth, x, *cast,
            *(() if recompute else kept),
        )  # fmt: skip
        return z, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_z, grad_log_det):
        t, bias, log_scale, permutation, z, raw, bent, growth, x, *rest = ctx.saved_tensors
        weights, kept = rest[:6], rest[6:]
        if ctx.recompute:
            kept = _network(x, weights)[1]
        moved = bent.shape[1]
        sizes = (z.shape[1] - moved, moved)
        grad_still, grad_half = grad_z.split(sizes, 1)
        half = z.split(sizes, 1)[1]
        grad_out = torch.empty((len(z), 2 * moved, *z.shape[2:]), dtype=z.dtype, device=z.device)
        grad_shift, grad_raw = grad_out.chunk(2, 1)
        torch.mul(grad_half, growth, out=grad_shift)
        torch.mul(grad_half, half, out=grad_raw)
        grad_raw.add_(grad_log_det.view(-1, 1, 1, 1))
        # d log_scale / d raw = 12 σ(u)(1 − σ(u)) · 1/3 · σ(−raw), with bent = σ(u)
        slope = torch.addcmul(bent, bent, bent, value=-1).mul_(4)
        grad_raw.mul_(slope).mul_(raw.neg().sigmoid_())
        grad_x, grads = _network_back(
            grad_out.to(x.dtype).contiguous(memory_format=CHANNELS_LAST), x, weights, kept
        )
        grad_y = torch.empty_like(z)
        grad_y[:, : sizes[0]] = grad_x.contiguous()
        grad_y[:, : sizes[0]].add_(grad_still)
        grad_y[:, sizes[0] :] = grad_shift
        column = (-1, 1, 1)
        inverse = torch.empty_like(permutation)
        inverse[permutation] = torch.arange(len(permutation))
        grad_t = grad_y.index_select(1, inverse).mul_(log_scale.exp().view(column))
        grad_bias = grad_t.sum((0, 2, 3))
        torch.add(t, bias.view(column), out=grad_y)
        grad_log_scale = grad_y.mul_(grad_t).sum((0, 2, 3))
        grads = [grad.to(z.dtype) for grad in grads]
        return grad_t, grad_bias, grad_log_scale, None, None, None, *grads


def _network(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the network makes of x (B, I, H, W), channels-last, and what its way back needs."""
    first, first_bias, middle, middle_bias, last, last_bias = weights
    before = conv2d(x, first, first_bias, padding=1)
    hidden = silu(before)
    between = linear(_rows(hidden), _matrix(middle), middle_bias)
    after = torch.empty_like(before)
    SILU(between, out=_rows(after))
    return conv2d(after, last, last_bias, padding=1), (before, hidden, between, after)


def _network_back(
    grad: Tensor, x: Tensor, weights: list[Tensor], kept: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor]]:
    """The gradients with respect to x and the weights, from that of what the network made."""
    first, _, middle, _, last, _ = weights
    before, hidden, between, after = kept
    if grad.dtype == torch.bfloat16:
        back, grad_last, grad_last_bias = _last_back(grad, after, last)
    else:
        back, grad_last, grad_last_bias = _convolution_back(grad, after, last)
    back = _rows(back)
    SILU_BACK(back, between, grad_input=back)
    grad_middle = (back.t() @ _rows(hidden)).view(middle.shape)
    grad_middle_bias = back.sum(0)
    passing = torch.empty_like(before)
    torch.mm(back, _matrix(middle), out=_rows(passing))
    SILU_BACK(passing, before, grad_input=passing)
    grad_x, grad_first, grad_first_bias = _convolution_back(passing, x, first)
    return grad_x, [
        grad_first, grad_first_bias, grad_middle, grad_middle_bias, grad_last, grad_last_bias
    ]  # fmt: skip


def _last_back(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """As ``_convolution_back``: in bfloat16 two plain products are faster than oneDNN's own way."""
    batch, channels, high, wide = grad.shape
    framed = grad.new_zeros(batch, high + 2, wide + 2, channels)
    framed[:, 1:-1, 1:-1] = grad.permute(0, 2, 3, 1)
    step = framed.stride()
    around = framed.as_strided(
        (batch, high, wide, 3, 3 * channels), (*step[:3], step[1], 1)
    ).reshape(-1, 9 * channels)
    # Row k of the frame's window is the gradient that the weight's offset 2 − k has made.
    turned = weight.flip(2, 3)
    grad_weight = _rows(x).t() @ around  # (I, 9·O), rows and columns of the window turned
    grad_weight = grad_weight.view(-1, 3, 3, channels).flip(1, 2).permute(3, 0, 1, 2)
    back = conv2d(grad, turned.transpose(0, 1).contiguous(memory_format=CHANNELS_LAST), padding=1)
    return back, grad_weight, _rows(grad).sum(0)


def _convolution_back(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3
    )


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W), channels-last, as (B·H·W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _matrix(weight: Tensor) -> Tensor:
    return weight.view(weight.shape[:2])
