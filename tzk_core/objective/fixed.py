"""The same terms in shapes that do not depend on the data, as a CUDA graph needs them.

:class:`~tzk_core.objective.level.Level` picks the rows of a batch that have e = 1, and those that
have e = 0, and works on each. Here every row goes through both branches of every kind, and counts
where it has that e: more arithmetic, which a GPU does not notice, and no question to it. The
expectations are the same; the noise of the codes is drawn for other rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..data.names import below
from .level import Level, log_exists, log_prior, watched
from .terms import Existence

if TYPE_CHECKING:
    from ..knowledge import Knowledge
    from ..model import TzK

__all__ = ["FixedLevel"]


class FixedLevel(Level):
    """The terms of ``elbo`` of one level, and of those below it."""

    def _counted(self, counts: Tensor) -> list[list[bool]]:
        return [[True] * len(each) for each in counts]

    def add(
        self,
        tzk: TzK,
        t: Tensor,
        t_shaping: Tensor,
        latent: tuple[Tensor, Tensor],
        existence: Existence,
        prefix: str,
    ) -> None:
        together = self._together(tzk, existence)
        for names in together:
            self._side_by_side(tzk, names, t, t_shaping, latent, existence, prefix)
        alone = set(tzk.kinds()).difference(*together)
        for name, kind in tzk.kinds().items():
            if name in alone and name in existence:
                self._kind(kind, name, t, t_shaping, latent, existence, prefix)

    def descend(self, tzk: TzK, t: Tensor, existence: Existence) -> None:
        for name, kind in tzk.kinds().items():
            if name in existence and kind.child is not None:
                with torch.no_grad():
                    base = kind.encoders[1].base(t)
                    c, _ = kind.encoders[1].sample(base, self.weights.normal(base[0], self.rows))
                self._below(kind.child, c, existence, name, name, 1.0)

    def _kind(self, kind: Knowledge, name, t, t_shaping, latent, existence, prefix) -> None:
        w, path, whole = self.weights, prefix + name, existence[name]
        e, known = whole[self.rows.here], (whole >= 0).sum()
        told = self._of(name, self.rows.here)
        logit = kind.t_discriminator(t_shaping)
        log_e = -softplus(torch.where(e == 1, -logit, logit))
        self._mean(w.discriminator * told * log_e, e >= 0, known)
        self._watch_mean(f"{path}/t_accuracy", ((logit > 0) == (e == 1)).float(), e >= 0, known)
        for value in (1, 0):
            encoder, chosen, count = kind.encoders[value], e == value, (whole == value).sum()
            base = encoder.base(t)
            c, log_q = encoder.sample(base, w.normal(base[0], self.rows))
            log_p_c = kind.code_prior.log_prob(c)
            log_p_t = kind.decoders[value].log_prob(latent[0], c) + latent[1]
            log_p_e = kind.c_discriminator.log_prob(c, value)
            bound = log_p_t + w.kl * (log_p_c - log_q) + w.discriminator * told * log_p_e
            self._mean(bound, chosen, known)

            sure = (log_p_e > -math.log(2)).float()
            self._watch_mean(f"{path}/c_accuracy_{value}", sure, chosen, count)
            if value == 0:
                continue
            seen = log_exists(logit)
            told_of = watched(latent, seen, log_q, log_p_c, log_p_t, log_p_e, base[1])
            for what, values in told_of.items():
                self._watch_mean(f"{path}/{what}", values, chosen, count)
            still = torch.where(chosen.unsqueeze(1), c.detach(), 0)
            moments = torch.stack([still.sum(0), still.square().sum(0)])
            self.terms.moments[path] = moments / count.clamp_min(1)
            if kind.child is not None:
                self._below(kind.child, c, existence, path, name, count.to(t) / known.clamp_min(1))

    def _below(
        self,
        child: TzK,
        c: Tensor,
        existence: Existence,
        path: str,
        name: str,
        share: Tensor | float,
    ) -> None:
        """The TzK below a kind, of the rows that have it."""
        whole = existence[name]
        has = whole == 1
        inner_existence = {
            inner: torch.where(has, values, -1) for inner, values in below(existence, name).items()
        }
        still = c.detach() if self.weights.config.stop_child_density else c
        latent = child.flow.encode(still)
        log_p = log_prior(latent)
        inner = type(self)(
            self.weights, self.terms, self.rows, below(self.balance, name), self.scale * share
        )
        inner._mean(log_p, has[self.rows.here], has.sum())
        self._watch_mean(f"{path}/child_log_prob", log_p, has[self.rows.here], has.sum())
        inner.add(child, still, c, latent, inner_existence, prefix=path + "/")

    def _mean(self, values: Tensor, among: Tensor, count: Tensor) -> None:
        """Adds the mean over the rows of the whole batch that ``count`` counts."""
        # torch.where, and not a product: a row that is not meant may not be finite.
        self._credit(torch.where(among, values, 0) / count.clamp_min(1), 1, 1.0)

    def _watch_mean(self, what: str, values: Tensor, among: Tensor, count: Tensor) -> None:
        total = torch.where(among, values.detach(), 0).sum()
        self.terms.logs[what] = total / count.clamp_min(1)
