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

A step's batch may be worked on in parts (other processes, gradient accumulation): each part takes a
run of its rows, but draws the noise of all of them and divides by how many there are in all. So the
parts' totals, and their gradients, add up to the whole batch's, however it is cut.

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

from .data.names import below
from .densities import standard_normal
from .errors import UsageError
from .schedule import Weight, at
from .siblings import alike, side_by_side

if TYPE_CHECKING:
    from .knowledge import Knowledge
    from .model import TzK

__all__ = ["Existence", "ObjectiveConfig", "Part", "Terms", "check_objective", "objective"]

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
    """What is maximised, in nats a row of the batch, and what is worth watching.

    Everything here is a sum over rows divided by how many rows there are in the whole batch: parts
    of a batch add up.
    """

    total: Tensor | float = 0.0  # scalar
    logs: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)  # (2, C): E[c], E[c²] of a kind

    def add(self, name: str, values: Tensor, count: int) -> None:
        """Watches the mean of ``values`` over ``count`` rows, of which some may be elsewhere."""
        self.logs[name] = values.detach().sum() / count

    def join(self, other: Terms) -> None:
        """Adds another part of the same batch to what is watched."""
        for mine, theirs in ((self.logs, other.logs), (self.moments, other.moments)):
            for name, value in theirs.items():
                mine[name] = mine[name] + value if name in mine else value

    def figures(self) -> dict[str, Tensor]:
        """What is watched, of the whole batch once its parts are joined: scalars."""
        variances = {
            f"{path}/code_variance": (square - mean.square()).mean()
            for path, (mean, square) in self.moments.items()
        }
        return self.logs | variances


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of the ``count`` rows of a batch: those that are here."""

    count: int
    start: int
    stop: int

    @property
    def here(self) -> slice:
        return slice(self.start, self.stop)

    def among(self, chosen: Tensor) -> tuple[Tensor, Part]:
        """What is here of the rows ``chosen`` of the batch (ascending).

        Returns:
            Their places among the rows that are here, and which part of the chosen they are.
        """
        before = int((chosen < self.start).sum())
        until = int((chosen < self.stop).sum())
        return chosen[before:until] - self.start, Part(len(chosen), before, until)


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
    parents: bool = True,
    part: Part | None = None,
    balance: dict[str, Tensor] | None = None,
) -> Terms:
    """What a step maximises, in nats, averaged over the batch.

    Args:
        t: observations, (B, …), or those of ``part`` alone.
        existence: e of every path, of the whole batch; paths that are missing are unknown.
        generator: of the codes' noise; it draws the same whatever the part.
        step: of the stage, for schedules.
        latent: (z, log_det) of ``model.flow.encode(t)`` where it is known and the flow is frozen.
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
        log_p = _log_prior(latent)
        terms.add("bits_per_dim", 8 - log_p / (dims * math.log(2)), rows.count)
        if not (config.product and knowledge):
            terms.total = terms.total + log_p.sum() / rows.count
    if knowledge:
        weights = _Weights(
            config, at(config.kl_weight, step), at(config.discriminator_weight, step), generator
        )
        level = _Level(weights, terms, rows, balance or {})
        if parents:
            level.add(model, t, t, latent, existence, prefix="")
        else:
            level.descend(model, t, existence)
    return terms


@dataclass
class _Weights:
    config: ObjectiveConfig
    kl: float
    discriminator: float
    generator: torch.Generator

    def normal(self, like: Tensor, rows: Part) -> Tensor:
        """Noise for the rows that are here, drawn for all."""
        return self.whole_normal(like, rows)[rows.here]

    def whole_normal(self, like: Tensor, rows: Part) -> Tensor:
        shape = (rows.count, *like.shape[1:])
        return torch.randn(shape, generator=self.generator, dtype=like.dtype).to(like.device)

    def from_encoder(self) -> bool:
        """Whether this batch's codes come from the encoder (always, for elbo)."""
        if self.config.name == "elbo":
            return True
        return bool(torch.rand((), generator=self.generator) < self.config.encoder_fraction)


class _Level:
    """The terms of one level of the hierarchy, weighted by ``scale``; ``rows`` of it are here."""

    def __init__(
        self,
        weights: _Weights,
        terms: Terms,
        rows: Part,
        balance: dict[str, Tensor],
        scale: float = 1.0,
    ) -> None:
        self.weights, self.terms, self.rows, self.scale = weights, terms, rows, scale
        self.balance = balance

    def add(
        self,
        tzk: TzK,
        t: Tensor,
        t_shaping: Tensor,
        latent: tuple[Tensor, Tensor],
        existence: Existence,
        prefix: str,
    ) -> None:
        """Every kind of ``tzk``: ``t`` enters everything but p_enc(e|t), ``t_shaping`` that.

        ``t``, ``t_shaping`` and ``latent`` hold the rows that are here, ``existence`` all rows.
        """
        product = self.weights.config.name == "tzk" and self.weights.config.product
        known_kinds = torch.zeros(self.rows.count, dtype=t.dtype, device=t.device)
        from_encoder = self.weights.from_encoder()
        together = self._together(tzk, existence)
        for names in together:
            self._side_by_side(tzk, names, t, t_shaping, latent, existence, prefix)
        alone = set(tzk.kinds()).difference(*together)
        for name, kind in tzk.kinds().items():
            e = existence.get(name) if name in alone else None
            known = torch.tensor([]) if e is None else (e >= 0).nonzero().squeeze(1)
            if not len(known):
                continue
            known_kinds[known] += 1
            # With a product every row has a K of its own, so terms are averaged over the batch.
            share = len(known) / self.rows.count if product else 1.0
            path = prefix + name
            truth = e[known]
            here, part = self.rows.among(known)
            balance = self._of(name, known)
            self._discriminate(kind, t_shaping[here], truth, part, path, share, balance)
            for value in (1, 0):
                rows = known[truth == value]
                if len(rows):
                    weight = share * len(rows) / len(known)
                    self._branch(
                        kind, value, rows, weight, t, latent, existence, path, from_encoder, name
                    )
        if product:
            # ½ log p(t) of the encoder form, −½ (K − 1) log p(t) of the decoder form.
            weight = 0.5 - 0.5 * (known_kinds - 1)
            weight = torch.where(known_kinds > 0, weight, torch.ones_like(weight))
            weighted = weight[self.rows.here] * _log_prior(latent)
            self._credit(weighted, self.rows.count, 1.0)

    def descend(self, tzk: TzK, t: Tensor, existence: Existence) -> None:
        """What is below the kinds of ``tzk``, with codes of their encoders as they are."""
        for name, kind in tzk.kinds().items():
            e = existence.get(name)
            if e is None or kind.child is None:
                continue
            chosen = (e == 1).nonzero().squeeze(1)
            if not len(chosen):
                continue
            here, part = self.rows.among(chosen)
            with torch.no_grad():
                base = kind.encoders[1].base(t[here])
                c, _ = kind.encoders[1].sample(base, self.weights.normal(base[0], part))
            self._child(kind.child, c, existence, chosen, part, 1.0, name, name)

    def _together(self, tzk: TzK, existence: Existence) -> list[list[str]]:
        """Kinds to be worked out side by side.

        On images it would not pay: there the arithmetic takes the time, and every kind would see
        rows with either e in both of its branches.
        """
        if len(tzk.observation_shape) > 1 or self.weights.config.name != "elbo":
            return []
        kinds = tzk.kinds()
        return alike({n: k for n, k in kinds.items() if n in existence and k.child is None})

    def _side_by_side(
        self,
        tzk: TzK,
        names: list[str],
        t: Tensor,
        t_shaping: Tensor,
        latent: tuple[Tensor, Tensor],
        existence: Existence,
        prefix: str,
    ) -> None:
        """The same as `_discriminate` and `_branch` of each kind, for ``elbo``, in one pass."""
        w, rows = self.weights, self.rows
        kinds = [tzk.kinds()[name] for name in names]
        whole = torch.stack([existence[name] for name in names])
        like = t.new_empty(rows.count, len(names), 2, kinds[0].config.code_dim)
        noise = w.normal(like, rows).movedim(0, 2)
        found = side_by_side(kinds, t, t_shaping, latent[0], noise)
        e, known = whole[:, rows.here], (whole >= 0).sum(1, keepdim=True)
        # Every kind is a mean over the rows of the whole batch that know its e.
        each = (e >= 0).to(t) / known.clamp_min(1)
        told = torch.stack([torch.as_tensor(self._of(n, rows.here)).expand(len(t)) for n in names])
        log_e = -softplus(torch.where(e == 1, -found.t_logit, found.t_logit))
        self._credit(each * w.discriminator * told * log_e, 1, 1.0)
        log_p_t = found.log_p_z + latent[1]
        bound = log_p_t + w.kl * (found.log_p_c - found.log_q)
        bound = bound + w.discriminator * told.unsqueeze(1) * found.log_p_e
        values = torch.tensor([[0], [1]], device=e.device)
        # torch.where, and not a product: a row that has the other e counts for nothing, even if
        # it is not finite there.
        chosen = e.unsqueeze(1) == values
        self._credit(torch.where(chosen, each.unsqueeze(1) * bound, 0), 1, 1.0)
        self._watch_all(names, prefix, whole, found, log_p_t, latent, chosen)

    def _watch_all(self, names, prefix, whole, found, log_p_t, latent, chosen) -> None:
        """What `_discriminate` and `_watch` watch, of every kind."""
        e, logs = whole[:, self.rows.here], self.terms.logs

        def add(what: str, values: Tensor, among: Tensor, counts: Tensor) -> None:
            sums = torch.where(among, values.detach(), 0).sum(1) / counts.clamp_min(1)
            for name, value, count in zip(names, sums, counts, strict=True):
                if count:
                    logs[f"{prefix}{name}/{what}"] = value

        right = ((found.t_logit > 0) == (e == 1)).float()
        add("t_accuracy", right, e >= 0, (whole >= 0).sum(1))
        counts = torch.stack([(whole == value).sum(1) for value in (0, 1)])
        for value in (1, 0):
            sure = (found.log_p_e[:, value] > -math.log(2)).float()
            add(f"c_accuracy_{value}", sure, chosen[:, value], counts[value])
        log_q, log_p_c, log_p_e, log_sigma = (
            f[:, 1] for f in (found.log_q, found.log_p_c, found.log_p_e, found.log_sigma)
        )
        watched = _watched(latent, log_q, log_p_c, log_p_t[:, 1], log_p_e, log_sigma)
        for what, values in watched.items():
            add(what, values, chosen[:, 1], counts[1])
        c = torch.where(chosen[:, 1].unsqueeze(2), found.c[:, 1].detach(), 0)
        for number, name in enumerate(names):
            if counts[1][number]:
                moments = torch.stack([c[number].sum(0), c[number].square().sum(0)])
                self.terms.moments[prefix + name] = moments / counts[1][number]

    def _credit(self, values: Tensor, count: int, share: float) -> None:
        """Adds ``share`` of the mean over ``count`` rows, of which ``values`` are those here."""
        self.terms.total = self.terms.total + self.scale * share * (values.sum() / count)

    def _of(self, name: str, rows: Tensor) -> Tensor | float:
        """The weights of some rows for the discriminators of a kind."""
        weights = self.balance.get(name)
        return 1.0 if weights is None else weights[rows]

    def _discriminate(
        self,
        kind: Knowledge,
        t: Tensor,
        e: Tensor,
        part: Part,
        path: str,
        share: float,
        balance: Tensor | float,
    ) -> None:
        logit, e = kind.t_discriminator(t), e[part.here]
        log_e = -softplus(torch.where(e == 1, -logit, logit))
        weight = self.weights.discriminator
        if self.weights.config.name == "tzk":
            weight = 0.5 * weight
        self._credit(_here(balance, part) * log_e, part.count, share * weight)
        self.terms.add(f"{path}/t_accuracy", ((logit > 0) == (e == 1)).float(), part.count)

    def _branch(
        self, kind, value, rows, share, t, latent, existence, path, from_encoder, name
    ) -> None:
        """The rows that have e = ``value``, and the child of those that exist."""
        w, config = self.weights, self.weights.config
        here, part = self.rows.among(rows)
        z, log_det = latent[0][here], latent[1][here]
        encoder = kind.encoders[value]
        base = encoder.base(t[here])
        if from_encoder:
            c, log_q = encoder.sample(base, w.normal(base[0], part))
        else:
            c = _prior_codes(kind, value, w, base[0], part)
            log_q = encoder.log_prob(base, c)
        log_p_c = kind.code_prior.log_prob(c)
        log_p_t = kind.decoders[value].log_prob(z, c) + log_det
        log_p_e = kind.c_discriminator.log_prob(c, value)
        told = w.discriminator * _here(self._of(name, rows), part) * log_p_e
        if config.name == "elbo":
            bound = log_p_t + w.kl * (log_p_c - log_q) + told
        else:
            bound = 0.5 * (log_q + log_p_t + log_p_c + told)
            if not config.product:
                bound = bound + 0.5 * _log_prior((z, log_det))
        self._credit(bound, part.count, share)
        self._watch(
            path, value, part.count, log_q, log_p_c, log_p_t, log_p_e, (z, log_det), c, base[1]
        )
        if value == 1 and kind.child is not None and from_encoder:
            self._child(kind.child, c, existence, rows, part, share, path, name)

    def _child(
        self,
        child: TzK,
        c: Tensor,
        known: Existence,
        chosen: Tensor,
        rows: Part,
        share: float,
        path: str,
        name: str,
    ) -> None:
        """The TzK below a kind, for the rows ``chosen`` that have it, of which ``c`` is here."""
        existence, balance = (
            {inner: values[chosen] for inner, values in below(of_all, name).items()}
            for of_all in (known, self.balance)
        )
        still = c.detach() if self.weights.config.stop_child_density else c
        latent = child.flow.encode(still)
        log_p = _log_prior(latent)
        inner = _Level(self.weights, self.terms, rows, balance, self.scale * share)
        if not self.weights.config.product:
            inner._credit(log_p, rows.count, 1.0)
        self.terms.add(f"{path}/child_log_prob", log_p, rows.count)
        inner.add(child, still, c, latent, existence, prefix=path + "/")

    def _watch(
        self, path, value, count, log_q, log_p_c, log_p_t, log_p_e, latent, c, log_sigma
    ) -> None:
        def add(name: str, values: Tensor) -> None:
            self.terms.add(f"{path}/{name}", values, count)

        add(f"c_accuracy_{value}", (log_p_e > -math.log(2)).float())
        if value == 0:
            return
        told = _watched(latent, log_q, log_p_c, log_p_t, log_p_e, log_sigma)
        for name, values in told.items():
            add(name, values)
        still = c.detach()
        self.terms.moments[path] = torch.stack([still.sum(0), still.square().sum(0)]) / count


def _watched(latent, log_q, log_p_c, log_p_t, log_p_e, log_sigma) -> dict[str, Tensor]:
    """What is watched of the rows that have a kind, each of the shape of ``log_q``."""
    log_enc = _log_prior(latent) + log_q
    log_dec = log_p_t + log_p_c + log_p_e
    return {
        "log_enc": log_enc,
        "log_dec": log_dec,
        "gap": log_enc - log_dec,
        "kl": log_q - log_p_c,
        "reconstruction": log_p_t,
        "encoder_log_sigma": log_sigma.mean(-1),
    }


def _log_prior(latent: tuple[Tensor, Tensor]) -> Tensor:
    """log p(t) from (z, log_det), (B,)."""
    return standard_normal(latent[0]) + latent[1]


def _prior_codes(
    kind: Knowledge, value: int, weights: _Weights, like: Tensor, rows: Part
) -> Tensor:
    """Codes from p_dec(c), or from p_dec(c|e) by acceptance, for the rows that are here.

    Acceptance looks at the codes of all rows: how many draws it takes must not depend on the part.
    """
    c = kind.code_prior.transform(weights.whole_normal(like, rows))
    if weights.config.prior_codes == "prior":
        return c[rows.here]
    waiting = torch.ones(len(c), dtype=torch.bool, device=c.device)
    for _ in range(64):
        with torch.no_grad():
            p = kind.c_discriminator.log_prob(c, value).exp()
        u = torch.rand(p.shape, generator=weights.generator, dtype=p.dtype).to(p.device)
        # Who was accepted stays: asked again, rare codes would be refused too often.
        waiting = waiting & (u >= p)
        if not waiting.any():
            break
        fresh = kind.code_prior.transform(weights.whole_normal(like, rows))
        c = torch.where(waiting.unsqueeze(1), fresh, c)
    return c[rows.here]


def _here(weights: Tensor | float, part: Part) -> Tensor | float:
    return weights[part.here] if isinstance(weights, Tensor) else weights
