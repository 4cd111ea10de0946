"""Tempered sequential Monte Carlo with Hamiltonian moves (Del Moral et al. 2006; Neal 2001).

Many independent populations side by side, each with its own generator, temperatures and step
size, so that a population comes out the same whoever its neighbours are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .deadline import check
from .randomness import Rows

__all__ = ["NotReached", "anneal"]

KEPT = 0.7  # effective share of the particles that a temperature step keeps
LEAPFROGS = 4
MOVES = 2
ACCEPTED = 0.7  # aim of the step size
STEPS = 400  # temperatures at most


class NotReached(Exception):
    """The populations cannot be moved to the target."""


# x (B, d) → (log of what holds at every temperature, log of what is tempered), each (B,).
Target = Callable[[Tensor], tuple[Tensor, Tensor]]


def anneal(state: Tensor, source: Rows, target: Target) -> tuple[Tensor, Tensor]:
    """Moves populations from exp(fixed) to exp(fixed + tempered).

    Args:
        state: (R, P, d), P draws of the starting distribution for each of R populations.
        source: one generator a population.
        target: the two log-densities of flat states.

    Returns:
        The populations (R, P, d), and the effective number of first particles that the last
        ones descend from, (R,): 1 / Σ (share of the descendants)². It is pessimistic, since moves
        make descendants of one particle independent again.

    Raises:
        NotReached: the target's density is not finite for any particle of a population, or
            ``STEPS`` temperatures did not do.
        OutOfTime: a deadline (:mod:`tzk_core.deadline`) passed.
    """
    count, particles, _ = state.shape
    state = state.clone()
    origin = torch.arange(particles, device=state.device).repeat(count, 1)
    power = torch.zeros(count, dtype=state.dtype, device=state.device)
    step = torch.full_like(power, 0.2)
    for _ in range(STEPS):
        active = (power < 1).nonzero().squeeze(1)
        if not len(active):
            break
        rows = source[active.tolist()]
        here = state[active]
        _, gain = target(here.flatten(0, 1))
        gain = gain.reshape(len(active), particles)
        # A particle where the density overflows has no weight; it never wins.
        gain = gain.nan_to_num(nan=-math.inf, posinf=-math.inf)
        if not bool(gain.isfinite().any(1).all()):
            raise NotReached("their density is not finite anywhere that was looked at")
        rise = _rise(gain, 1 - power[active])
        power[active] = power[active] + rise
        weights = (rise.unsqueeze(1) * gain).softmax(1)
        u = rows.uniform(1, dtype=state.dtype, device=state.device)
        index = _systematic(weights, u)
        here = here.gather(1, index.unsqueeze(2).expand_as(here))
        origin[active] = origin[active].gather(1, index)
        for _ in range(MOVES):
            here, step[active] = _hamiltonian(here, power[active], step[active], rows, target)
        state[active] = here
    if bool((power < 1).any()):
        raise NotReached(f"{STEPS} temperatures do not lead from one to all")
    shares = torch.zeros(count, particles, dtype=state.dtype, device=state.device)
    shares.scatter_add_(1, origin, torch.full_like(shares, 1 / particles))
    return state, 1 / shares.square().sum(1)


def _rise(gain: Tensor, left: Tensor) -> Tensor:
    """The largest rise in power, at most ``left``, that keeps ``KEPT`` of the particles, (R,)."""
    low, high = torch.zeros_like(left), left.clone()
    wanted = KEPT * gain.shape[1]

    def size(rise: Tensor) -> Tensor:
        return 1 / (rise.unsqueeze(1) * gain).softmax(1).square().sum(1)

    whole = size(high) >= wanted
    for _ in range(30):
        middle = (low + high) / 2
        enough = size(middle) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(whole, left, low.clamp_min(1e-6).minimum(left))


def _systematic(weights: Tensor, u: Tensor) -> Tensor:
    """Systematic resampling: indices (R, P) of the particles that go on."""
    particles = weights.shape[1]
    places = (torch.arange(particles, device=u.device, dtype=u.dtype) + u) / particles
    return torch.searchsorted(weights.cumsum(1), places).clamp(max=particles - 1)


def _hamiltonian(
    state: Tensor, power: Tensor, step: Tensor, rows: Rows, target: Target
) -> tuple[Tensor, Tensor]:
    """One Hamiltonian move of every particle, and the step sizes for the next."""
    count, particles, size = state.shape
    where = {"dtype": state.dtype, "device": state.device}
    each = power.repeat_interleave(particles)
    length = step.repeat_interleave(particles).unsqueeze(1)

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        check()
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            fixed, tempered = target(x)
            total = fixed + each * tempered
            (gradient,) = torch.autograd.grad(total.sum(), x)
        return total.detach(), gradient

    x = state.flatten(0, 1)
    momentum = rows.normal(particles, size, **where).flatten(0, 1)
    before, gradient = potential(x)
    energy = before - 0.5 * momentum.square().sum(1)
    for _ in range(LEAPFROGS):
        momentum = momentum + 0.5 * length * gradient
        x = x + length * momentum
        after, gradient = potential(x)
        momentum = momentum + 0.5 * length * gradient
    log_accept = after - 0.5 * momentum.square().sum(1) - energy
    chance = log_accept.nan_to_num(nan=-math.inf).clamp(max=0).exp().reshape(count, particles)
    u = rows.uniform(particles, **where)
    moved = (u < chance).unsqueeze(2)
    state = torch.where(moved, x.reshape(count, particles, size), state)
    step = step * torch.exp(0.5 * (chance.mean(1) - ACCEPTED))
    return state, step.clamp(1e-4, 1.0)
