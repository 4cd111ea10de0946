r"""Estimators of log p(t | k), and what each one is (design, section 5; paper, Appendix C).

``prior``
    log p(t), exact. :meth:`tzk_core.model.TzK.prior`.
``reconstruction``
    log p_dec(t ∣ e=1, c), c ~ p_enc(c ∣ e=1, t): the paper's conditional NLL. *Not a likelihood of
    t*: the cost of knowing c is left out.
``importance``
    :math:`\log \frac1N \sum_n w_n - \log p(e)`, a lower bound in expectation, tight as N grows.
``encoder``
    :math:`\log p(t) + \log p_{enc}(e \mid t) - \log E[p_{enc}(e \mid t)]`, no code needed.

All in nats, of the density of t = x/256 − ½.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .densities import log_mean_exp, standard_normal
from .errors import InvalidRequest
from .lineage import Lineage
from .randomness import Rows, rows

if TYPE_CHECKING:
    from .model import TzK

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "estimate",
    "fit_encoder_rate",
    "fit_existence",
    "log_joint_by_importance",
]

ESTIMATORS = ("importance", "reconstruction", "encoder")
PRIOR_SHARE = 0.1
ROWS_AT_ONCE = 2048


class Estimate(NamedTuple):
    """log p(t | k) of a batch, with what the estimator can say of itself."""

    log_prob: Tensor  # (B,) nats
    effective_sample_size: Tensor | None  # (B,), of the importance weights


def log_joint_by_importance(
    lineage: Lineage, t: Tensor, z: Tensor, log_det: Tensor, draws: int, source: Rows
) -> Estimate:
    r"""log p_dec(t, e): the importance estimate before log p(e) is subtracted.

    With N = 1 the code comes from the encoder. For N ≥ 16, ⌈0.1 N⌉ of the draws come from the
    prior and every weight divides by the mixture
    :math:`q = (n_{enc}\, p_{enc} + n_{prior}\, p_{dec}) / N`, which bounds the weights (a
    deterministic mixture, Owen & Zhou 2000).

    Args:
        t, z, log_det: observations and their ``flow.encode``.
        draws: N.
        source: one generator a row of t.
    """
    batch = t.shape[0]
    n_prior = math.ceil(PRIOR_SHARE * draws) if draws >= 16 else 0
    noise = lineage.draw_noise(source, draws, like=t)
    weights = []
    # Rows are taken a few at a time, so that 256 draws of a full batch fit into memory.
    step = max(1, ROWS_AT_ONCE // draws)
    for start in range(0, batch, step):
        part = slice(start, start + step)
        epsilon = [n[part] for n in noise]
        weights.append(_log_weights(lineage, t[part], z[part], log_det[part], epsilon, n_prior))
    log_w = torch.cat(weights) if weights else t.new_zeros(0, draws)
    ess = (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp()
    return Estimate(log_mean_exp(log_w, 1), ess)


def _log_weights(lineage, t, z, log_det, noise, n_prior) -> Tensor:
    """log w, (B, N): the last ``n_prior`` draws of each row from the prior."""
    batch, draws = noise[0].shape[:2]
    n_encoder = draws - n_prior

    def flat(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    codes = _encoded_codes(lineage, t, [flat(n[:, :n_encoder]) for n in noise], n_encoder)
    if n_prior:
        tail = [flat(n[:, n_encoder:]) for n in noise]
        deepest = lineage.last.code_prior.transform(tail[-1])
        drawn = lineage.ascend(deepest, tail)
        codes = [
            flat(torch.cat((a.reshape(batch, n_encoder, -1), b.reshape(batch, n_prior, -1)), 1))
            for a, b in zip(codes, drawn, strict=True)
        ]
    log_prior = lineage.log_prior(codes)
    log_q = lineage.log_encoder(codes, t, draws)
    if n_prior:
        log_q = torch.logaddexp(
            log_q + math.log(n_encoder / draws), log_prior + math.log(n_prior / draws)
        )
    log_p_z = lineage.decoder.log_prob(z.repeat_interleave(draws, dim=0), codes[0])
    log_w = log_prior + lineage.log_exists(codes[-1]) + log_p_z - log_q
    return log_w.reshape(batch, draws) + log_det.unsqueeze(1)


def _encoded_codes(lineage: Lineage, t: Tensor, noise: list[Tensor], draws: int) -> list[Tensor]:
    """Codes from the encoders, ``draws`` for each row of t, each (B·draws, C_j)."""
    codes, x = [], t
    for depth, ((_, kind), e) in enumerate(zip(lineage.nodes, lineage.values, strict=True)):
        encoder = kind.encoders[e]
        base = encoder.base(x)
        if depth == 0:
            # The regressor from t is the costly part, and the same for every draw.
            base = tuple(part.repeat_interleave(draws, dim=0) for part in base)
        x, _ = encoder.sample(base, noise[depth])
        codes.append(x)
    return codes


@torch.no_grad()
def estimate(
    model: TzK,
    lineage: Lineage,
    t: Tensor,
    *,
    estimator: str = "importance",
    draws: int = 16,
    generator: torch.Generator | Rows | None = None,
) -> Estimate:
    """log p(t | the path) by the named estimator.

    Raises:
        InvalidRequest: no such estimator, or fewer than one draw.
    """
    if estimator not in ESTIMATORS:
        raise InvalidRequest(
            f"no estimator {estimator!r}; there are {', '.join(ESTIMATORS)}", pointer="/estimator"
        )
    if draws < 1:
        raise InvalidRequest(f"draws must be at least 1, got {draws}", pointer="/draws")
    source = rows(generator, len(t))
    z, log_det = model.flow.encode(t)
    if estimator == "encoder":
        rate = lineage.last.encoder_rate
        if len(lineage.nodes) > 1 or rate.isnan():
            raise InvalidRequest(
                f"the encoder estimate of {lineage.path!r} is not there: it needs a knowledge of "
                "the first level and fit_encoder_rate",
                pointer="/estimator",
            )
        e = lineage.values[-1]
        log_e = lineage.last.t_discriminator.log_prob(t, e)
        rate = rate if e else 1 - rate
        return Estimate(standard_normal(z) + log_det + log_e - rate.log(), None)
    if estimator == "reconstruction":
        noise = [n[:, 0] for n in lineage.draw_noise(source, 1, like=t)]
        codes = lineage.encode(t, noise)
        return Estimate(lineage.decoder.log_prob(z, codes[0]) + log_det, None)
    joint = log_joint_by_importance(lineage, t, z, log_det, draws, source)
    return Estimate(joint.log_prob - lineage.existence.log(), joint.effective_sample_size)


@torch.no_grad()
def fit_existence(
    model: TzK,
    *,
    draws: int = 1_000_000,
    generator: torch.Generator | None = None,
    only: list[str] | None = None,
) -> None:
    """Stores p(e = 1) = E over p_dec(c) of p_dec(e=1∣c), from ``draws`` codes.

    It normalises the importance estimate; fit it again whenever code priors or discriminators
    have changed. Every knowledge, or ``only`` some paths.
    """
    for path in model.paths() if only is None else only:
        kind = model.find(path)
        size, like = kind.config.code_dim, kind.existence
        total, left = 0.0, draws
        while left:
            count = min(left, 65536)
            noise = rows(generator, count).normal(size, dtype=like.dtype, device=like.device)
            logit = kind.c_discriminator(kind.code_prior.transform(noise))
            total += float(logit.sigmoid().double().sum())
            left -= count
        # A certainty that float32 cannot tell from 0 or 1 would make log p infinite.
        limits = torch.finfo(like.dtype)
        kind.existence.fill_(min(max(total / draws, limits.tiny), 1 - limits.eps / 2))


@torch.no_grad()
def fit_encoder_rate(
    model: TzK, *, draws: int = 100_000, generator: torch.Generator | None = None, batch: int = 512
) -> None:
    """Stores E over t ~ p(t) of p_enc(e=1∣t) for every root knowledge (``encoder`` estimator).

    ``draws`` samples of the t-flow; fit it again when the t-flow or a discriminator has changed.
    """
    totals = dict.fromkeys(model.kinds(), 0.0)
    left = draws
    while left:
        count = min(left, batch)
        t = model.prior.sample((count,), generator=generator)
        for name, kind in model.kinds().items():
            totals[name] += float(logsigmoid(kind.t_discriminator(t)).exp().double().sum())
        left -= count
    for name, kind in model.kinds().items():
        kind.encoder_rate.fill_(totals[name] / draws)
