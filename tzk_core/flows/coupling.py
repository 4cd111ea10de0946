"""Affine and additive coupling (Dinh et al. 2014, 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from ..networks import CouplingNetwork
from .layer import Invertible

__all__ = ["Coupling", "recompute_networks"]

FLOOR = 6.0


class Coupling(Invertible):
    r"""Half of the channels moved by a function of the other half.

    .. math:: z_a = t_a, \qquad z_b = (t_b + m(t_a)) \cdot \sigma(s(t_a) + 2)

    with log σ taken by ``logsigmoid`` and bent by tanh so that it stays above −``FLOOR``: without a
    floor a trained flow contracts some pixels a millionfold, and the inverse loses them in float32
    (docs/decisions.md). With the network's last layer at zero the scale starts at σ(2) ≈ 0.88.

    Args:
        channels: C ≥ 2, odd allowed; ⌈C/2⌉ condition and ⌊C/2⌋ are moved.
        width: hidden width of the network.
        spatial: maps (B, C, H, W) if true, vectors (B, C) if not.
        flip: moves the first half instead of the last.
        additive: shift only, log-determinant 0.
        context: channels of the context, 0 for none.

    With ``recompute`` set, the network's activations, which are nearly all that a flow keeps for
    the way back, are dropped and worked out again there: the same gradients, for one more forward
    pass of the network (its last layer excepted).
    """

    recompute = False

    def __init__(
        self,
        channels: int,
        width: int,
        generator: torch.Generator,
        *,
        spatial: bool,
        flip: bool = False,
        additive: bool = False,
        context: int = 0,
    ) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"a coupling needs at least 2 channels, got {channels}")
        moved = channels // 2
        self.sizes = (moved, channels - moved) if flip else (channels - moved, moved)
        self.flip, self.additive, self.spatial = flip, additive, spatial
        self.network = CouplingNetwork(
            channels - moved,
            moved if additive else 2 * moved,
            width,
            generator,
            spatial=spatial,
            context=context,
        )

    def encode(self, t: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        still, moved = self._split(t)
        shift, raw = self._shift_and_raw_scale(still, context)
        if raw is None:
            return self._join(still, moved + shift), t.new_zeros(t.shape[0])
        log_scale = _log_scale(raw)
        return self._join(still, (moved + shift) * log_scale.exp()), log_scale.flatten(1).sum(1)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        still, moved = self._split(z)
        shift, raw = self._shift_and_raw_scale(still, context)
        if raw is None:
            return self._join(still, moved - shift), z.new_zeros(z.shape[0])
        log_scale = _log_scale(raw)
        return self._join(still, moved * (-log_scale).exp() - shift), -log_scale.flatten(1).sum(1)

    def _shift_and_raw_scale(
        self, still: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        # Whatever precision the network ran in, the transform itself keeps the observation's.
        if self.recompute and torch.is_grad_enabled():
            # Nothing in a network is random, so there is no state of generators to keep.
            out = checkpoint(
                self.network, still, context, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = self.network(still, context)
        out = out.to(still.dtype)
        if self.additive:
            return out, None
        shift, raw = out.chunk(2, dim=1)
        return shift, raw + 2.0

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 2 or x.shape[1] != sum(self.sizes):
            raise ValueError(f"expected {sum(self.sizes)} channels, got the shape {tuple(x.shape)}")
        first, last = x.split(self.sizes, dim=1)
        return (last, first) if self.flip else (first, last)

    def _join(self, still: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, still) if self.flip else (still, moved), dim=1)


def recompute_networks(model: nn.Module, recompute: bool) -> None:
    """Whether the couplings on maps within ``model`` recompute their networks on the way back.

    Those on vectors have little to drop, and kinds side by side (``torch.vmap``) cannot.
    """
    for module in model.modules():
        if isinstance(module, Coupling) and module.spatial:
            module.recompute = recompute


def _log_scale(raw: Tensor) -> Tensor:
    """log σ(raw), bent to stay above −FLOOR."""
    return -FLOOR * torch.tanh(logsigmoid(raw) / -FLOOR)
