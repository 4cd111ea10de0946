r"""Do encoder and decoder say the same? (paper, Section 2; design, section 5)

The encoder's posterior p_enc(e=1 ∣ t) is one network's answer. The decoder's is worked out,

.. math:: p_{dec}(e=1 \mid t) = Z_1 / (Z_0 + Z_1), \qquad Z_e \approx p_{dec}(t, e),

each Z_e by the importance estimate of :mod:`tzk_core.likelihood`, p_dec(e ∣ c) included and p(e)
not subtracted. So its logit is log Z₁ − log Z₀. Nothing in training makes the two equal, so their
distance measures what the paper claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..likelihood import log_joint_by_importance
from ..model import TzK
from ..randomness import derived, rows
from .figures import mean_of
from .held_out import Figure

__all__ = ["DRAWS", "Consistency", "Posteriors", "consistency", "posteriors"]

DRAWS = 256
BATCH = 64
ENCODER_DRAWS = 16


@dataclass(frozen=True)
class Posteriors:
    """Both answers about one knowledge, on the same observations; every tensor float64 (B,)."""

    path: str
    encoder: Tensor  # logit of p_enc(e = 1 ∣ ancestors present, t)
    decoder: Tensor  # log Z₁ − log Z₀
    error: Tensor  # standard error of `decoder`, from the spread of the importance weights
    sample_size: Tensor  # the smaller of the effective sample sizes of Z₀ and Z₁, of N


@dataclass(frozen=True)
class Consistency:
    """How far the two answers are apart."""

    path: str
    agreement: Figure  # share of the images where both say yes or both say no
    difference: Figure  # encoder's logit less decoder's, nats
    median_distance: float  # of |difference|, nats
    probability_gap: Figure  # |p_enc − p_dec|
    error: float  # the median over images of the decoder's standard error, nats
    sample_size: Figure  # effective, of N draws
    encoder_right: Figure | None  # share of the images where e is known and it is right
    decoder_right: Figure | None


@torch.no_grad()
def posteriors(
    model: TzK,
    path: str,
    t: Tensor,
    *,
    seed: int,
    draws: int = DRAWS,
    tick: Callable[[int], None] | None = None,
) -> Posteriors:
    """The encoder's and the decoder's posterior of one knowledge.

    The decoder's standard error is that of log Z₁ − log Z₀ by the delta method, √(Σ_e 1/ESS_e −
    1/N). It believes the weights that were seen: where the effective sample size is near 1, what
    matters was perhaps never drawn, and the error is larger than it says.

    Args:
        t: observations (B, …), to which the ancestors of ``path`` apply.
        seed: of codes.
        draws: N of each Z_e, at least 256 to be worth reading.
        tick: called with the number of images of each batch.
    """
    found = []
    for start in range(0, len(t), BATCH):
        part = t[start : start + BATCH].to(model.reference)
        source = rows(derived(seed, "consistency", path, start), len(part))
        encoder = model.posterior(part, knowledge=[path], draws=ENCODER_DRAWS, generator=source)
        z, log_det = model.flow.encode(part)
        each = [
            log_joint_by_importance(
                model.lineage(path, present=present), part, z, log_det, draws, source
            )
            for present in (False, True)
        ]
        log_z = [one.log_prob.double() for one in each]
        size = torch.stack([one.effective_sample_size.double() for one in each])
        variance = (1 / size - 1 / draws).clamp(min=0).sum(0)
        columns = encoder[path].logit.double(), log_z[1] - log_z[0], variance.sqrt(), size.amin(0)
        found.append(torch.stack(columns).cpu())
        if tick is not None:
            tick(len(part))
    return Posteriors(path, *torch.cat(found, 1))


def consistency(both: Posteriors, present: Tensor | None = None) -> Consistency:
    """Figures of two posteriors.

    Args:
        present: e of each image, int (B,), 1, 0 or −1 for unknown; None where nothing is known.
    """
    path, encoder, decoder = both.path, both.encoder, both.decoder
    gap = encoder - decoder
    right: list[Figure | None] = [None, None]
    if present is not None and (known := present >= 0).any():
        truth = present[known] == 1
        right = [
            mean_of((logit[known] > 0) == truth, f"{who} right about {path}", "share")
            for who, logit in (("encoder", encoder), ("decoder", decoder))
        ]
    return Consistency(
        path=path,
        agreement=mean_of((encoder > 0) == (decoder > 0), f"agree about {path}", "share"),
        difference=mean_of(gap, f"encoder − decoder, {path}", "nats"),
        median_distance=float(gap.abs().median()),
        probability_gap=mean_of(
            (encoder.sigmoid() - decoder.sigmoid()).abs(), f"|p_enc − p_dec|, {path}", "probability"
        ),
        error=float(both.error.median()),
        sample_size=mean_of(both.sample_size, path, f"of {path}'s draws"),
        encoder_right=right[0],
        decoder_right=right[1],
    )
