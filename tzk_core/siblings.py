"""Kinds of one shape on one code, worked out side by side.

Ten digits below a data set are forty small networks, and a step of each is a few multiplications
behind hundreds of calls. Stacked, they are one network with one more dimension (``torch.vmap``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .knowledge import Knowledge

__all__ = ["Factors", "alike", "side_by_side"]


class Factors(NamedTuple):
    """The factors of K kinds for B observations; of each pair the first is for e = 0."""

    t_logit: Tensor  # of p_enc(e = 1 ∣ t), (K, B)
    log_q: Tensor  # log p_enc(c ∣ e, t), (K, 2, B)
    log_p_c: Tensor  # log p_dec(c), (K, 2, B)
    log_p_z: Tensor  # log p_dec(z ∣ e, c), (K, 2, B)
    log_p_e: Tensor  # log p_dec(e ∣ c), (K, 2, B)
    c: Tensor  # (K, 2, B, C)
    log_sigma: Tensor  # of the encoder's base, (K, 2, B, C)


def alike(kinds: dict[str, Knowledge]) -> list[list[str]]:
    """Names of kinds without children whose factors have the same shapes: groups of two or more."""
    groups: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        if kind.child is None:
            shape = kind.config.model_copy(update={"label": None}).model_dump_json()
            groups.setdefault(shape, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def side_by_side(
    kinds: Iterable[Knowledge], t: Tensor, t_shaping: Tensor, z: Tensor, noise: Tensor
) -> Factors:
    """All factors of kinds that are :func:`alike`, for both values of e, with encoder codes.

    The gradients are those of the kinds' own parameters.

    Args:
        t: observations, (B, …); ``t_shaping`` the same for p_enc(e ∣ t).
        z: their latent states, (B, …).
        noise: of the codes, N(0, I), (K, 2, B, C).
    """
    modules = [_Kind(kind) for kind in kinds]
    states = [dict(_tensors(module)) for module in modules]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def one(state, noise):
        return functional_call(modules[0], state, (t, t_shaping, z, noise))

    return Factors(*torch.vmap(one)(stacked, noise))


def _tensors(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name. Torch's own walks take longer than what they are for here."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module.named_children():
        yield from _tensors(child, f"{prefix}{name}.")


class _Kind(nn.Module):
    """One kind as a function, to be called with the numbers of another."""

    def __init__(self, kind: Knowledge) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, t: Tensor, t_shaping: Tensor, z: Tensor, noise: Tensor) -> tuple:
        kind = self.kind
        both = []
        for e in (0, 1):
            encoder = kind.encoders[e]
            base = encoder.base(t)
            c, log_q = encoder.sample(base, noise[e])
            both.append(
                (
                    log_q,
                    kind.code_prior.log_prob(c),
                    kind.decoders[e].log_prob(z, c),
                    kind.c_discriminator.log_prob(c, e),
                    c,
                    base[1],
                )
            )
        return kind.t_discriminator(t_shaping), *map(torch.stack, zip(*both, strict=True))
