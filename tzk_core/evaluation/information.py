r"""How much a code tells of what it encodes: the terms of Eq. 12 (paper, Appendix A.2).

.. math::
    I(c; t) = E[\log q(c \mid t) - \log \tfrac1M \sum_m q(c \mid t_m)], \qquad c \sim q(c \mid t)

with q = p_enc(· ∣ e = 1, ·), t an image at the root and the parent's code below it, and the mean
over M observations, that of c among them. Each term is at most log M, so the estimate is too, and
in expectation it is a lower bound of the information under the data's distribution of t. Since
z = f(t) is one to one, I(c; t) is I(z; c) as well, and Eq. 12's two terms are one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.quantisation import dequantise
from ..model import TzK
from ..randomness import Rows, derived, rows
from .figures import mean_of
from .held_out import Figure

__all__ = ["CodeInformation", "code_information", "mixture_information"]

BATCH = 256
LARGEST = 10_000
ELEMENTS = 2_000_000  # of a block of log q(c_n ∣ t_m)


@dataclass(frozen=True)
class CodeInformation:
    """What is known of one knowledge's code, e = 1."""

    path: str
    information: Figure  # I(c; t), nats
    cap: float  # log M, nats: what the estimate cannot exceed
    log_encoder: Figure  # E[log q(c ∣ t)], nats: −entropy of the code given t
    variance: list[float]  # of each element of c, over observations and noise


@torch.no_grad()
def code_information(
    model: TzK, path: str, pixels: Tensor, *, seed: int, largest: int = LARGEST
) -> CodeInformation:
    """I(c; t) of the knowledge at ``path``.

    Args:
        pixels: uint8 (N, C, H, W), images to which that knowledge applies.
        seed: of dequantisation and codes.
        largest: at most so many images, the first of a seeded order. Time goes with its square.
    """
    lineage = model.lineage(path)
    encoder = lineage.last.encoders[1]
    order = torch.randperm(len(pixels), generator=derived(seed, "information", path))[:largest]
    means, log_sigmas, bases, codes, log_q = [], [], [], [], []
    for index in order.split(BATCH):
        source = rows(derived(seed, "information", path, int(index[0])), len(index))
        t = _observations(model, pixels[index], source)
        mean, log_sigma = encoder.base(lineage.observed(t, source))
        noise = source.normal(mean.shape[1], dtype=mean.dtype, device=mean.device)
        c, log_prob = encoder.sample((mean, log_sigma), noise)
        means.append(mean)
        log_sigmas.append(log_sigma)
        bases.append(mean + log_sigma.exp() * noise)
        codes.append(c)
        log_q.append(log_prob)
    terms = mixture_information(torch.cat(bases), torch.cat(means), torch.cat(log_sigmas))
    return CodeInformation(
        path=path,
        information=mean_of(terms.cpu(), f"I(c; t), {path}", "nats"),
        cap=math.log(len(order)),
        log_encoder=mean_of(torch.cat(log_q).cpu(), f"log q(c|t), {path}", "nats"),
        variance=torch.cat(codes).double().var(0, correction=0).tolist(),
    )


def mixture_information(u: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(u_n; µ_n, σ_n²) − log (1/M) Σ_m N(u_n; µ_m, σ_m²) for each n, (M,) float64.

    An invertible map u → c adds the same to both logarithms, so this is the information of the
    encoder's code, whose flow comes after its Gaussian.

    Args:
        u: a draw from each Gaussian, (M, C).
        mean, log_sigma: of the Gaussians, (M, C); σ not below about 1e-5 of the means' spread.
    """
    # −½((u−µ)/σ)² is expanded into products of matrices. In float64: it cancels where σ is small.
    u, mean, log_sigma = u.double(), mean.double(), log_sigma.double()
    precision = (-2 * log_sigma).exp()
    linear = (mean * precision).T
    constant = -0.5 * (mean.square() * precision).sum(1) - log_sigma.sum(1)
    own = -0.5 * ((u - mean) * (-log_sigma).exp()).square().sum(1) - log_sigma.sum(1)
    terms = []
    step = max(1, ELEMENTS // len(mean))
    for part, own_part in zip(u.split(step), own.split(step)):
        log_q = constant + part @ linear - 0.5 * part.square() @ precision.T
        terms.append(own_part - log_q.logsumexp(1) + math.log(len(mean)))
    return torch.cat(terms)


def _observations(model: TzK, pixels: Tensor, source: Rows) -> Tensor:
    noise = source.uniform(*pixels.shape[1:], device=model.device)
    return dequantise(pixels, noise)
