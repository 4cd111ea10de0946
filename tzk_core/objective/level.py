"""The terms of one level of the hierarchy, and of those below it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..data.names import below
from ..densities import standard_normal
from ..siblings import side_by_side, together
from .codes import Weights, prior_codes
from .terms import Existence, Part, Terms

if TYPE_CHECKING:
    from ..knowledge import Knowledge
    from ..model import TzK

__all__ = ["Level", "log_exists", "log_prior", "watched"]


class Level:
    """The terms of one level of the hierarchy, weighted by ``scale``; ``rows`` of it are here."""

    def __init__(
        self,
        weights: Weights,
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
            logit = self._discriminate(kind, t_shaping[here], truth, part, path, share, balance)
            for value in (1, 0):
                rows = known[truth == value]
                if len(rows):
                    weight = share * len(rows) / len(known)
                    seen = log_exists(logit[truth[part.here] == value])
                    self._branch(
                        kind,
                        value,
                        rows,
                        weight,
                        t,
                        latent,
                        existence,
                        path,
                        from_encoder,
                        name,
                        seen,
                    )
        if product:
            # ½ log p(t) of the encoder form, −½ (K − 1) log p(t) of the decoder form.
            weight = 0.5 - 0.5 * (known_kinds - 1)
            weight = torch.where(known_kinds > 0, weight, torch.ones_like(weight))
            weighted = weight[self.rows.here] * log_prior(latent)
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
        """Kinds to be worked out side by side."""
        if self.weights.config.name != "elbo":
            return []
        return together(tzk, existence)

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
        told = torch.stack([t.new_ones(len(t)) * self._of(n, rows.here) for n in names])
        log_e = -softplus(torch.where(e == 1, -found.t_logit, found.t_logit))
        self._credit(each * w.discriminator * told * log_e, 1, 1.0)
        log_p_t = found.log_p_z + latent[1]
        bound = log_p_t + w.kl * (found.log_p_c - found.log_q)
        bound = bound + w.discriminator * told.unsqueeze(1) * found.log_p_e
        values = torch.arange(2, device=e.device).unsqueeze(1)
        # torch.where, and not a product: a row that has the other e counts for nothing, even if
        # it is not finite there.
        chosen = e.unsqueeze(1) == values
        self._credit(torch.where(chosen, each.unsqueeze(1) * bound, 0), 1, 1.0)
        self._watch_all(names, prefix, whole, found, log_p_t, latent, chosen)

    def _watch_all(self, names, prefix, whole, found, log_p_t, latent, chosen) -> None:
        """What `_discriminate` and `_watch` watch, of every kind."""
        e, logs = whole[:, self.rows.here], self.terms.logs

        counts = torch.stack([(whole == value).sum(1) for value in (0, 1)])
        some = self._counted(counts)

        def add(what: str, values: Tensor, among: Tensor, counts: Tensor, some: list[bool]) -> None:
            sums = torch.where(among, values.detach(), 0).sum(1) / counts.clamp_min(1)
            for name, value, there in zip(names, sums, some, strict=True):
                if there:
                    logs[f"{prefix}{name}/{what}"] = value

        right = ((found.t_logit > 0) == (e == 1)).float()
        either = [no or yes for no, yes in zip(*some, strict=True)]
        add("t_accuracy", right, e >= 0, counts.sum(0), either)
        for value in (1, 0):
            sure = (found.log_p_e[:, value] > -math.log(2)).float()
            add(f"c_accuracy_{value}", sure, chosen[:, value], counts[value], some[value])
        log_q, log_p_c, log_p_e, log_sigma = (
            f[:, 1] for f in (found.log_q, found.log_p_c, found.log_p_e, found.log_sigma)
        )
        seen = log_exists(found.t_logit)
        told = watched(latent, seen, log_q, log_p_c, log_p_t[:, 1], log_p_e, log_sigma)
        for what, values in told.items():
            add(what, values, chosen[:, 1], counts[1], some[1])
        c = torch.where(chosen[:, 1].unsqueeze(2), found.c[:, 1].detach(), 0)
        for number, name in enumerate(names):
            if some[1][number]:
                moments = torch.stack([c[number].sum(0), c[number].square().sum(0)])
                self.terms.moments[prefix + name] = moments / counts[1][number]

    def _counted(self, counts: Tensor) -> list[list[bool]]:
        """Which of some counts are of any rows; a GPU is asked once, not for every figure."""
        return (counts > 0).tolist()

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
    ) -> Tensor:
        """The logits of p_enc(e|t) of the rows that are here."""
        logit, e = kind.t_discriminator(t), e[part.here]
        log_e = -softplus(torch.where(e == 1, -logit, logit))
        weight = self.weights.discriminator
        if self.weights.config.name == "tzk":
            weight = 0.5 * weight
        self._credit(_here(balance, part) * log_e, part.count, share * weight)
        self.terms.add(f"{path}/t_accuracy", ((logit > 0) == (e == 1)).float(), part.count)
        return logit

    def _branch(
        self, kind, value, rows, share, t, latent, existence, path, from_encoder, name, seen
    ) -> None:
        """The rows that have e = ``value``, and the child of those that exist.

        ``seen`` is log p_enc(e=1|t) of those that are here.
        """
        w, config = self.weights, self.weights.config
        here, part = self.rows.among(rows)
        z, log_det = latent[0][here], latent[1][here]
        encoder = kind.encoders[value]
        base = encoder.base(t[here])
        if from_encoder:
            c, log_q = encoder.sample(base, w.normal(base[0], part))
        else:
            c = prior_codes(kind, value, w, base[0], part)
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
                bound = bound + 0.5 * log_prior((z, log_det))
        self._credit(bound, part.count, share)
        latent_here = (z, log_det)
        told_of = watched(latent_here, seen, log_q, log_p_c, log_p_t, log_p_e, base[1])
        self._watch(path, value, part.count, log_p_e, told_of, c)
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
        log_p = log_prior(latent)
        inner = Level(self.weights, self.terms, rows, balance, self.scale * share)
        if not self.weights.config.product:
            inner._credit(log_p, rows.count, 1.0)
        self.terms.add(f"{path}/child_log_prob", log_p, rows.count)
        inner.add(child, still, c, latent, existence, prefix=path + "/")

    def _watch(self, path, value, count, log_p_e, told_of, c) -> None:
        def add(name: str, values: Tensor) -> None:
            self.terms.add(f"{path}/{name}", values, count)

        add(f"c_accuracy_{value}", (log_p_e > -math.log(2)).float())
        if value == 0:
            return
        for name, values in told_of.items():
            add(name, values)
        still = c.detach()
        self.terms.moments[path] = torch.stack([still.sum(0), still.square().sum(0)]) / count


def watched(latent, log_e, log_q, log_p_c, log_p_t, log_p_e, log_sigma) -> dict[str, Tensor]:
    """What is watched of the rows that have a kind, each of the shape of ``log_q``.

    log p_enc(t, k) and log p_dec(t, k) of Eq. 3 and 4 for this kind alone, and what Eq. 11 adds to
    the log of their mean: −log cosh(gap/2), zero where the two agree.

    Args:
        log_e: log p_enc(e=1|t), by the discriminator as it is (on a balanced batch, of that).
    """
    log_enc = log_prior(latent) + log_e + log_q
    log_dec = log_p_t + log_p_c + log_p_e
    half = (log_enc - log_dec).abs() / 2
    return {
        "log_enc": log_enc,
        "log_dec": log_dec,
        "gap": log_enc - log_dec,
        "regulariser": math.log(2) - half - softplus(-2 * half),
        "kl": log_q - log_p_c,
        "reconstruction": log_p_t,
        "encoder_log_sigma": log_sigma.mean(-1),
    }


def log_exists(logit: Tensor) -> Tensor:
    """log p(e=1) by a logit."""
    return -softplus(-logit)


def log_prior(latent: tuple[Tensor, Tensor]) -> Tensor:
    """log p(t) from (z, log_det), (B,)."""
    return standard_normal(latent[0]) + latent[1]


def _here(weights: Tensor | float, part: Part) -> Tensor | float:
    return weights[part.here] if isinstance(weights, Tensor) else weights
