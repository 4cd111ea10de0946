r"""What training maximises (design, section 4; paper, Section 2.2 and Appendix A).

``elbo``, the default, is log p(t) plus one bound for each kind whose existence is known:

.. math::
    \log p_{dec}(t \mid e, c) + \beta\,[\log p_{dec}(c) - \log p_{enc}(c \mid e, t)]
    + w\,[\log p_{dec}(e \mid c) + \log p_{enc}(e \mid t)], \qquad c \sim p_{enc}(c \mid e, t)

With β = w = 1 all but the last term is the evidence bound of log p_dec(t, e). With β < 1 it is no
longer a bound.

``tzk`` is the paper's ½(log p_enc + log p_dec) (Eq. 10), the missing code drawn from the encoder in
a share ``encoder_fraction`` of the batches and from p_dec(c) in the others (Section 4). By default
it is taken a kind at a time,

.. math::
    \log p(t) + \sum_i \tfrac12 [\log p_{enc}(t, k^i) + \log p_{dec}(t, k^i)],

and with ``product`` as Eq. 3 and 4 have it,

.. math::
    \tfrac12 [\log p(t) + \sum_i \log p_{enc}(k^i \mid t)]
    + \tfrac12 [\sum_i \log p(t \mid k^i)\, p(k^i) - (K - 1) \log p(t)],

which for K ≥ 2 is no bound, does not train the prior at K = 2, and for K > 2 rewards scaling z up
for ever if the t-flow trains (design, section 4, property 1).

An unknown e contributes no term. In a hierarchy ``c.detach()`` enters everything of a child except
its discriminators p_enc(e_j∣c), which go on shaping c: a child's density of c would otherwise be
raised without bound by shrinking c (property 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import softplus

from .densities import standard_normal
from .errors import UsageError
from .schedule import Weight, at

if TYPE_CHECKING:
    from .knowledge import Knowledge
    from .model import TzK

__all__ = ["Existence", "ObjectiveConfig", "Terms", "check_objective", "objective"]

# For each path, e ∈ {1, 0, −1 unknown} of every row, (B,).
Existence = dict[str, Tensor]


class ObjectiveConfig(BaseModel):
    """The objective of a stage."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["elbo", "tzk"] = Field("elbo", description="evidence bound, or the paper's form")
    kl_weight: Weight = Field(
        0.2, description="β of elbo: a number, or {start, end, steps}; below 1 it is no bound"
    )
    discriminator_weight: Weight = Field(
        10.0, description="w of log p_dec(e|c) and log p_enc(e|t): a number or {start, end, steps}"
    )
    encoder_fraction: float = Field(
        0.5, ge=0, le=1, description="tzk: share of batches whose codes come from the encoder"
    )
    prior_codes: Literal["prior", "conditional"] = Field(
        "prior", description="tzk: the other codes come from p_dec(c), or p_dec(c|e) by acceptance"
    )
    product: bool = Field(False, description="tzk: Eq. 4 as it stands, for K ≥ 2 not a bound")
    unbounded: bool = Field(
        False, description="tzk: run even where the objective can be raised for ever"
    )
    stop_child_density: bool = Field(
        True, description="the child's density does not reach the parent's code"
    )


@dataclass
class Terms:
    """What is maximised, in nats a row of the batch, and what is worth watching."""

    total: Tensor | float = 0.0  # scalar
    logs: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        self.logs[name] = value.detach()


def check_objective(model: TzK, config: ObjectiveConfig, trains_flow: bool) -> None:
    """Refuses settings whose objective can be raised for ever.

    Raises:
        UsageError: `tzk` with a free code prior, with encoder codes alone, or as a product of
            more than two kinds with a t-flow that trains, and not ``unbounded``.
    """
    if config.name != "tzk" or config.unbounded:
        return
    if config.encoder_fraction == 1:
        raise UsageError(
            "objective tzk with encoder_fraction 1 rewards σ → 0 for ever; take a smaller one"
        )
    for kind in model.every_knowledge():
        if kind.config.code_prior == "flow":
            raise UsageError(
                "objective tzk with code_prior flow rewards shrinking c for ever; take normal or "
                "volume_preserving"
            )
    if config.product and trains_flow and len(model.kinds()) > 2:
        raise UsageError(
            f"objective tzk with product, {len(model.kinds())} kinds and a t-flow that trains "
            "rewards scaling z up for ever; leave product out, or train the t-flow first"
        )


def objective(
    model: TzK,
    t: Tensor,
    existence: Existence,
    config: ObjectiveConfig,
    generator: torch.Generator,
    *,
    step: int = 0,
    latent: tuple[Tensor, Tensor] | None = None,
    flow: bool = True,
    knowledge: bool = True,
) -> Terms:
    """What a step maximises, in nats, averaged over the batch.

    Args:
        t: observations, (B, …).
        existence: e of every path; paths that are missing are unknown.
        generator: of the codes' noise.
        step: of the stage, for schedules.
        latent: (z, log_det) of ``model.flow.encode(t)`` where it is known and the flow is frozen.
        flow, knowledge: which terms.
    """
    terms = Terms()
    if latent is None:
        latent = model.flow.encode(t)
    if flow:
        dims = math.prod(model.observation_shape)
        terms.add("bits_per_dim", 8 - _log_prior(latent).mean() / (dims * math.log(2)))
        if not (config.product and knowledge):
            terms.total = terms.total + _log_prior(latent).mean()
    if knowledge:
        weights = _Weights(
            config, at(config.kl_weight, step), at(config.discriminator_weight, step), generator
        )
        _Level(weights, terms).add(model, t, t, latent, existence, prefix="")
    return terms


@dataclass
class _Weights:
    config: ObjectiveConfig
    kl: float
    discriminator: float
    generator: torch.Generator

    def normal(self, like: Tensor) -> Tensor:
        noise = torch.randn(like.shape, generator=self.generator, dtype=like.dtype)
        return noise.to(like.device)

    def from_encoder(self) -> bool:
        """Whether this batch's codes come from the encoder (always, for elbo)."""
        if self.config.name == "elbo":
            return True
        return bool(torch.rand((), generator=self.generator) < self.config.encoder_fraction)


class _Level:
    """The terms of one level of the hierarchy, weighted by ``scale``."""

    def __init__(self, weights: _Weights, terms: Terms, scale: float = 1.0) -> None:
        self.weights, self.terms, self.scale = weights, terms, scale

    def add(
        self,
        tzk: TzK,
        t: Tensor,
        t_shaping: Tensor,
        latent: tuple[Tensor, Tensor],
        existence: Existence,
        prefix: str,
    ) -> None:
        """Every kind of ``tzk``: ``t`` enters everything but p_enc(e|t), ``t_shaping`` that."""
        product = self.weights.config.name == "tzk" and self.weights.config.product
        known_kinds = torch.zeros(len(t), dtype=t.dtype, device=t.device)
        from_encoder = self.weights.from_encoder()
        for name, kind in tzk.kinds().items():
            e = existence.get(name)
            known = torch.tensor([]) if e is None else (e >= 0).nonzero().squeeze(1)
            if not len(known):
                continue
            known_kinds[known] += 1
            # With a product every row has a K of its own, so terms are averaged over the batch.
            share = len(known) / len(t) if product else 1.0
            path = prefix + name
            truth = e[known]
            self._discriminate(kind, t_shaping[known], truth, path, share)
            for value in (1, 0):
                rows = known[truth == value]
                if len(rows):
                    part = share * len(rows) / len(known)
                    self._branch(
                        kind, value, rows, part, t, latent, existence, path, from_encoder, name
                    )
        if product:
            # ½ log p(t) of the encoder form, −½ (K − 1) log p(t) of the decoder form.
            weight = 0.5 - 0.5 * (known_kinds - 1)
            weight = torch.where(known_kinds > 0, weight, torch.ones_like(weight))
            self._credit((weight * _log_prior(latent)).mean(), 1.0)

    def _credit(self, value: Tensor, share: float) -> None:
        self.terms.total = self.terms.total + self.scale * share * value

    def _discriminate(self, kind: Knowledge, t: Tensor, e: Tensor, path: str, share: float) -> None:
        logit = kind.t_discriminator(t)
        log_e = -softplus(torch.where(e == 1, -logit, logit))
        weight = self.weights.discriminator
        if self.weights.config.name == "tzk":
            weight = 0.5 * weight
        self._credit(log_e.mean(), share * weight)
        self.terms.add(f"{path}/t_accuracy", ((logit > 0) == (e == 1)).float().mean())

    def _branch(
        self, kind, value, rows, share, t, latent, existence, path, from_encoder, name
    ) -> None:
        """The rows that have e = ``value``, and the child of those that exist."""
        w, config = self.weights, self.weights.config
        z, log_det = latent[0][rows], latent[1][rows]
        encoder = kind.encoders[value]
        base = encoder.base(t[rows])
        if from_encoder:
            c, log_q = encoder.sample(base, w.normal(base[0]))
        else:
            c = _prior_codes(kind, value, w, base[0])
            log_q = encoder.log_prob(base, c)
        log_p_c = kind.code_prior.log_prob(c)
        log_p_t = kind.decoders[value].log_prob(z, c) + log_det
        log_p_e = kind.c_discriminator.log_prob(c, value)
        if config.name == "elbo":
            bound = log_p_t + w.kl * (log_p_c - log_q) + w.discriminator * log_p_e
        else:
            bound = 0.5 * (log_q + log_p_t + log_p_c + w.discriminator * log_p_e)
            if not config.product:
                bound = bound + 0.5 * _log_prior((z, log_det))
        self._credit(bound.mean(), share)
        self._watch(path, value, log_q, log_p_c, log_p_t, log_p_e, (z, log_det), c, base[1])
        if value == 1 and kind.child is not None and from_encoder:
            below = {p[len(name) + 1 :]: e[rows] for p, e in _below(existence, name).items()}
            self._child(kind.child, c, below, share, path)

    def _child(self, child: TzK, c: Tensor, below: Existence, share: float, path: str) -> None:
        still = c.detach() if self.weights.config.stop_child_density else c
        latent = child.flow.encode(still)
        log_p = _log_prior(latent)
        inner = _Level(self.weights, self.terms, self.scale * share)
        if not self.weights.config.product:
            inner._credit(log_p.mean(), 1.0)
        self.terms.add(f"{path}/child_log_prob", log_p.mean())
        inner.add(child, still, c, latent, below, prefix=path + "/")

    def _watch(self, path, value, log_q, log_p_c, log_p_t, log_p_e, latent, c, log_sigma) -> None:
        add = self.terms.add
        add(f"{path}/c_accuracy_{value}", (log_p_e > -math.log(2)).float().mean())
        if value == 0:
            return
        log_enc = _log_prior(latent) + log_q
        log_dec = log_p_t + log_p_c + log_p_e
        add(f"{path}/log_enc", log_enc.mean())
        add(f"{path}/log_dec", log_dec.mean())
        add(f"{path}/gap", (log_enc - log_dec).mean())
        add(f"{path}/kl", (log_q - log_p_c).mean())
        add(f"{path}/reconstruction", log_p_t.mean())
        add(f"{path}/code_variance", c.var(0, correction=0).mean())
        add(f"{path}/encoder_log_sigma", log_sigma.mean())


def _log_prior(latent: tuple[Tensor, Tensor]) -> Tensor:
    """log p(t) from (z, log_det), (B,)."""
    return standard_normal(latent[0]) + latent[1]


def _prior_codes(kind: Knowledge, value: int, weights: _Weights, like: Tensor) -> Tensor:
    """Codes from p_dec(c), or from p_dec(c|e) by acceptance, one for each row of ``like``."""
    c = kind.code_prior.transform(weights.normal(like))
    if weights.config.prior_codes == "prior":
        return c
    waiting = torch.ones(len(c), dtype=torch.bool, device=c.device)
    for _ in range(64):
        with torch.no_grad():
            p = kind.c_discriminator.log_prob(c, value).exp()
        u = torch.rand(p.shape, generator=weights.generator, dtype=p.dtype).to(p.device)
        # Who was accepted stays: asked again, rare codes would be refused too often.
        waiting = waiting & (u >= p)
        if not waiting.any():
            break
        fresh = kind.code_prior.transform(weights.normal(like))
        c = torch.where(waiting.unsqueeze(1), fresh, c)
    return c


def _below(existence: Existence, name: str) -> Existence:
    return {path: e for path, e in existence.items() if path.startswith(name + "/")}
