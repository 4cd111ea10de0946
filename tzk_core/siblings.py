"""Kinds of one shape on one code, worked out side by side.

Ten digits below a data set are forty small networks, and a step of each is a few multiplications
behind hundreds of calls. Stacked, they are one network with one more dimension (``torch.vmap``).
While they train, the stacked weights are the parameters and those of the kinds views of them
(:class:`Stack`): two thousand small tensors would take longer to update than to work out.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .knowledge import Knowledge

if TYPE_CHECKING:
    from .model import TzK

__all__ = ["Factors", "Stack", "alike", "side_by_side", "together"]


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


def together(tzk: TzK, known: Iterable[str]) -> list[list[str]]:
    """Of the kinds of ``tzk`` that something is known of, those to be worked out side by side.

    On images it would not pay: there the arithmetic takes the time, and every kind would see rows
    with either e in both of its branches.
    """
    if len(tzk.observation_shape) > 1:
        return []
    known = set(known)
    return alike({name: kind for name, kind in tzk.kinds().items() if name in known})


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
    kinds = list(kinds)
    first, stacked = _Kind(kinds[0]), Stack.of(kinds)
    if stacked is None:
        states = [dict(_tensors(_Kind(kind))) for kind in kinds]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def one(state, noise):
        return functional_call(first, state, (t, t_shaping, z, noise))

    return Factors(*torch.vmap(one)(stacked, noise))


class Stack:
    """Kinds that are :func:`alike`, their weights stacked until :meth:`undo`.

    Gradients reach ``parameters`` and no longer those of the kinds, which are views of them.

    Args:
        kinds: all of whose parameters require a gradient.
    """

    def __init__(self, kinds: Sequence[Knowledge]) -> None:
        self.kinds = list(kinds)
        states = [dict(_tensors(_Kind(kind))) for kind in self.kinds]
        self.tensors: dict[str, Tensor] = {}
        self.parameters: list[tuple[Tensor, list[Tensor]]] = []  # (the stack, those of the kinds)
        for name, first in states[0].items():
            each = [state[name] for state in states]
            whole = torch.stack([one.detach() for one in each])
            if isinstance(first, nn.Parameter):
                whole = nn.Parameter(whole)
                for number, one in enumerate(each):
                    one.data = whole.data[number]
                self.parameters.append((whole, each))
            self.tensors[name] = whole
        for kind in self.kinds:
            kind.stack = self

    @staticmethod
    def of(kinds: Sequence[Knowledge]) -> dict[str, Tensor] | None:
        """The stacked tensors of these kinds, if they are.

        Raises:
            RuntimeError: they are, but among others, and a gradient would be lost.
        """
        found = {id(kind.stack): kind.stack for kind in kinds if kind.stack is not None}
        for stack in found.values():
            if len(stack.kinds) == len(kinds) and all(map(operator.is_, stack.kinds, kinds)):
                return stack.tensors
        if found and torch.is_grad_enabled():
            raise RuntimeError("kinds that train side by side are worked out in another company")
        return None

    def undo(self) -> None:
        """Gives every kind its own weights again, with the values that they have now."""
        for _, each in self.parameters:
            for one in each:
                one.data = one.data.clone()
        for kind in self.kinds:
            kind.stack = None


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
