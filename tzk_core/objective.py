r"""What training maximises (design, section 4; paper, Section 2.2).

The default, ``elbo``, is log p(t) plus one bound for each kind whose existence is known:

.. math::
    \log p_{dec}(t \mid e, c) + \beta\,[\log p_{dec}(c) - \log p_{enc}(c \mid e, t)]
    + w\,[\log p_{dec}(e \mid c) + \log p_{enc}(e \mid t)], \qquad c \sim p_{enc}(c \mid e, t)

With β = w = 1 the first three terms are the evidence bound of log p_dec(t, e). With β < 1 it is no
longer a bound. An unknown e contributes no term.

In a hierarchy ``c.detach()`` enters everything of a child except its discriminators p_enc(e_j∣c),
which go on shaping c: a child's density of c would otherwise be raised without bound by shrinking
c (design, section 4, property 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .densities import standard_normal

if TYPE_CHECKING:
    from .knowledge import Knowledge
    from .model import TzK

__all__ = ["Existence", "ObjectiveConfig", "Terms", "flow_terms", "knowledge_terms"]

# For each path, e ∈ {1, 0, −1 unknown} of every row, (B,).
Existence = dict[str, Tensor]


class ObjectiveConfig(BaseModel):
    """The objective of a stage that trains knowledge."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["elbo"] = Field("elbo", description="log p(t) plus one bound a kind")
    kl_weight: float = Field(
        0.2, ge=0, description="β, weight of log p_dec(c) − log p_enc(c|e,t); below 1 no bound"
    )
    discriminator_weight: float = Field(
        10.0, ge=0, description="w, weight of log p_dec(e|c) and log p_enc(e|t)"
    )


@dataclass
class Terms:
    """What is maximised, in nats a row of the batch, and what is worth watching."""

    total: Tensor | float = 0.0  # scalar
    logs: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        self.logs[name] = value.detach()


def flow_terms(model: TzK, t: Tensor) -> Terms:
    """log p(t), the mean over the batch, in nats."""
    z, log_det = model.flow.encode(t)
    log_p = (standard_normal(z) + log_det).mean()
    dims = math.prod(model.observation_shape)
    terms = Terms(log_p)
    terms.add("bits_per_dim", 8 - log_p / (dims * math.log(2)))
    return terms


def knowledge_terms(
    model: TzK,
    t: Tensor,
    latent: tuple[Tensor, Tensor],
    existence: Existence,
    config: ObjectiveConfig,
    generator: torch.Generator,
) -> Terms:
    """The sum over kinds of their bounds, each the mean over the rows where e is known.

    Args:
        model: its t-flow is not run here.
        t: observations, (B, …).
        latent: (z, log_det) of ``model.flow.encode(t)``; detached where the flow is frozen.
        existence: e of every path; paths that are missing are unknown.
        generator: of the codes' noise.
    """
    terms = Terms()
    _level(model, t, t, latent, existence, config, generator, terms, prefix="")
    return terms


def _level(tzk, t, t_shaping, latent, existence, config, generator, terms, prefix) -> None:
    """One level of the hierarchy: ``t`` for everything, ``t_shaping`` for p_enc(e|t)."""
    for name, kind in tzk.kinds().items():
        path = prefix + name
        e = existence.get(path)
        if e is None:
            continue
        known = (e >= 0).nonzero().squeeze(1)
        if not len(known):
            continue
        truth = e[known]
        logit = kind.t_discriminator(t_shaping[known])
        log_e = -torch.nn.functional.softplus(torch.where(truth == 1, -logit, logit))
        terms.total = terms.total + config.discriminator_weight * log_e.mean()
        terms.add(f"{path}/t_accuracy", ((logit > 0) == (truth == 1)).float().mean())
        for value in (1, 0):
            rows = known[truth == value]
            if len(rows):
                share = len(rows) / len(known)
                _branch(
                    kind, value, rows, share, t, latent, existence, config, generator, terms, path
                )


def _branch(
    kind: Knowledge, value, rows, share, t, latent, existence, config, generator, terms, path
) -> None:
    """The bound of the rows that have e = ``value``, and the child of those that exist."""
    z, log_det = latent[0][rows], latent[1][rows]
    encoder = kind.encoders[value]
    mean, log_sigma = encoder.base(t[rows])
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    c, log_q = encoder.sample((mean, log_sigma), noise)
    log_p_c = kind.code_prior.log_prob(c)
    log_p_t = kind.decoders[value].log_prob(z, c) + log_det
    log_p_e = kind.c_discriminator.log_prob(c, value)
    bound = (
        log_p_t + config.kl_weight * (log_p_c - log_q) + config.discriminator_weight * log_p_e
    ).mean()
    terms.total = terms.total + share * bound
    terms.add(f"{path}/c_accuracy_{value}", (log_p_e > -math.log(2)).float().mean())
    if value != 1:
        return
    terms.add(f"{path}/kl", (log_q - log_p_c).mean())
    terms.add(f"{path}/reconstruction", log_p_t.mean())
    terms.add(f"{path}/code_variance", c.var(0, correction=0).mean())
    terms.add(f"{path}/encoder_log_sigma", log_sigma.mean())
    if kind.child is not None:
        below = {
            p[len(path) + 1 :]: labels[rows]
            for p, labels in existence.items()
            if p.startswith(path + "/")
        }
        still = c.detach()
        latent = kind.child.flow.encode(still)
        log_p = (standard_normal(latent[0]) + latent[1]).mean()
        terms.total = terms.total + share * log_p
        terms.add(f"{path}/child_log_prob", log_p)
        inner = Terms()
        _level(kind.child, still, c, latent, below, config, generator, inner, prefix="")
        terms.total = terms.total + share * inner.total
        terms.logs.update({f"{path}/{key}": value for key, value in inner.logs.items()})
