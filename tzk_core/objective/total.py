"""What a step of training maximises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schedule import at
from .codes import FixedNoise, Weights
from .config import ObjectiveConfig
from .fixed import FixedLevel
from .level import Level, log_prior
from .terms import Existence, Part, Terms

if TYPE_CHECKING:
    from ..model import TzK

__all__ = ["objective"]


def objective(
    model: TzK,
    t: Tensor,
    existence: Existence,
    config: ObjectiveConfig,
    generator: torch.Generator | FixedNoise,
    *,
    step: int | tuple[Tensor, Tensor] = 0,
    latent: tuple[Tensor, Tensor] | None = None,
    flow: bool = True,
    knowledge: bool = True,
    parents: bool = True,
    part: Part | None = None,
    balance: dict[str, Tensor] | None = None,
) -> Terms:
    """What a step maximises, in nats, averaged over the batch.

    Args:
        t: observations, (B, …), or those of ``part`` alone.
        existence: e of every path, of the whole batch; paths that are missing are unknown.
        generator: of the codes' noise; it draws the same whatever the part. With noise that was
            drawn before, every shape is the same whatever the data
            (:mod:`tzk_core.objective.fixed`; for ``elbo`` alone).
        step: of the stage, for schedules; or the KL and the discriminators' weight themselves.
        latent: (z, log_det) of ``model.flow.encode(t)`` where it is known, with its gradient unless
            the flow is frozen.
        flow, knowledge: which terms.
        parents: whether the kinds of the first level have terms; without, only the TzKs over their
            codes have some, and the codes are encoded without a gradient.
        part: which rows of the batch ``t`` holds; all of them by default. The terms of all parts
            of a batch, each with a generator in the same state, add up to the batch's.
        balance: weights of the batch's rows in the terms of the discriminators of a path, (B,)
            each (:mod:`tzk_core.training.mixing`); 1 for paths that are missing.
    """
    terms = Terms()
    if latent is None and (flow or parents):
        latent = model.flow.encode(t)
    rows = Part(len(t), 0, len(t)) if part is None else part
    if flow:
        dims = math.prod(model.observation_shape)
        log_p = log_prior(latent)
        terms.add("bits_per_dim", 8 - log_p / (dims * math.log(2)), rows.count)
        if not (config.product and knowledge):
            terms.total = terms.total + log_p.sum() / rows.count
    if knowledge:
        if isinstance(step, int):
            step = at(config.kl_weight, step), at(config.discriminator_weight, step)
        kind = FixedLevel if isinstance(generator, FixedNoise) else Level
        level = kind(Weights(config, *step, generator), terms, rows, balance or {})
        if parents:
            level.add(model, t, t, latent, existence, prefix="")
        else:
            level.descend(model, t, existence)
    return terms
