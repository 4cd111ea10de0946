r"""A TzK whose every density is known in closed form, with those densities worked out apart.

Everything is linear and Gaussian, and existence is a bump,

.. math:: p(e = 1 \mid c) = \rho\, \exp(-\tfrac12 (c - m)^T Q\, (c - m)),

so that p(c ∣ e=1) and p(t ∣ e=1) are Gaussians, and p(t, e=0) is the difference of two. Nothing
here calls the library's arithmetic: the truths come from matrices by ``torch.linalg``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.flows import Invertible, VectorFlow
from tzk_core.flows.coupling import FLOOR
from tzk_core.model import TzK

__all__ = ["Bump", "Kind", "LinearFlow", "Normal", "World", "generator", "undo_coupling", "world"]

DTYPE = torch.float64


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(*values) -> Tensor:
    return torch.tensor(values, dtype=DTYPE)


# -- truth ----------------------------------------------------------------------------------------


@dataclass
class Bump:
    """ρ·exp(−½(x−m)ᵀQ(x−m)), a probability with ρ < 1."""

    height: float
    centre: Tensor  # (d,)
    precision: Tensor  # (d, d)

    def log_prob(self, x: Tensor) -> Tensor:
        off = x - self.centre
        return math.log(self.height) - 0.5 * torch.einsum("...i,ij,...j", off, self.precision, off)


@dataclass
class Normal:
    """N(mean, cov)."""

    mean: Tensor
    cov: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        off = x - self.mean
        quadratic = (off * torch.linalg.solve(self.cov, off.T).T).sum(1)
        return -0.5 * (quadratic + torch.logdet(2 * math.pi * self.cov))

    def sample(self, n: int, source: torch.Generator) -> Tensor:
        noise = torch.randn(n, len(self.mean), generator=source, dtype=DTYPE)
        return self.mean + noise @ torch.linalg.cholesky(self.cov).T

    def pushed(self, matrix: Tensor, shift: Tensor, noise: Tensor) -> Normal:
        """Of y = matrix·x + shift + N(0, noise)."""
        return Normal(matrix @ self.mean + shift, matrix @ self.cov @ matrix.T + noise)

    def times(self, bump: Bump) -> tuple[float, Normal]:
        """(E[bump], x given that it was accepted by it)."""
        precision = torch.linalg.inv(self.cov)
        cov = torch.linalg.inv(precision + bump.precision)
        mean = cov @ (precision @ self.mean + bump.precision @ bump.centre)
        # ∫ N(x; µ, Σ)·exp(−½|x−m|²_Q) dx = |I + ΣQ|^(−½)·exp(−½ (µ−m)ᵀ(Σ+Q⁻¹)⁻¹(µ−m))
        size = torch.eye(len(mean), dtype=DTYPE) + self.cov @ bump.precision
        off = self.mean - bump.centre
        spread = self.cov + torch.linalg.inv(bump.precision)
        exponent = -0.5 * (off @ torch.linalg.solve(spread, off)) - 0.5 * torch.logdet(size)
        return bump.height * float(exponent.exp()), Normal(mean, cov)


@dataclass
class Kind:
    """The truth of one knowledge on top of z = A·t + a, with c ~ N(0, I)."""

    flow: tuple[Tensor, Tensor]  # (A, a)
    weights: list[Tensor]  # W_e, z = W_e·c + b_e + σ_e·noise, for e = 0, 1
    biases: list[Tensor]
    sigmas: list[Tensor]
    exists: Bump  # p_dec(e=1 ∣ c)
    seen: Bump  # p_enc(e=1 ∣ t)

    @property
    def code_prior(self) -> Normal:
        size = self.weights[1].shape[1]
        return Normal(torch.zeros(size, dtype=DTYPE), torch.eye(size, dtype=DTYPE))

    @property
    def existence(self) -> float:
        return self.code_prior.times(self.exists)[0]

    @property
    def code(self) -> Normal:
        """p(c ∣ e=1)."""
        return self.code_prior.times(self.exists)[1]

    def decoded(self, c: Normal, e: int) -> Normal:
        """p(t ∣ e) where c has this density."""
        matrix, shift = self.flow
        inverse = torch.linalg.inv(matrix)
        noise = inverse @ torch.diag(self.sigmas[e] ** 2) @ inverse.T
        return c.pushed(inverse @ self.weights[e], inverse @ (self.biases[e] - shift), noise)

    def log_given_code(self, t: Tensor, c: Tensor, e: int = 1) -> Tensor:
        """log p(t ∣ e, c) row by row."""
        nowhere = torch.zeros(c.shape[1], c.shape[1], dtype=DTYPE)
        return torch.cat(
            [self.decoded(Normal(c[i], nowhere), e).log_prob(t[i : i + 1]) for i in range(len(t))]
        )

    @property
    def present(self) -> Normal:
        """p(t ∣ e=1)."""
        return self.decoded(self.code, 1)

    def log_joint(self, t: Tensor, e: int) -> Tensor:
        """log p_dec(t, e)."""
        if e:
            return math.log(self.existence) + self.present.log_prob(t)
        whole = self.decoded(self.code_prior, 0).log_prob(t)
        part = math.log(self.existence) + self.decoded(self.code, 0).log_prob(t)
        return whole + torch.log1p(-(part - whole).exp())

    def code_posterior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C) and covariance of p(c ∣ e=1, t)."""
        matrix, shift = self.flow
        w, b, s = self.weights[1], self.biases[1], self.sigmas[1]
        prior = self.code
        precision = torch.linalg.inv(prior.cov)
        cov = torch.linalg.inv(precision + w.T @ torch.diag(s**-2) @ w)
        z = t @ matrix.T + shift
        mean = (precision @ prior.mean + ((z - b) / s**2) @ w) @ cov
        return mean, cov


# -- the same as modules ---------------------------------------------------------------------------


class LinearFlow(Invertible):
    """z = A·t + a."""

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix), nn.Parameter(shift)
        self.shape = self.latent_shape = (len(shift),)

    def encode(self, t, context=None):
        z = t @ self.matrix.T + self.shift
        return z, torch.linalg.slogdet(self.matrix)[1].expand(len(t))

    def decode(self, z, context=None):
        t = torch.linalg.solve(self.matrix, (z - self.shift).T).T
        return t, -torch.linalg.slogdet(self.matrix)[1].expand(len(z))


class AffineHead(nn.Module):
    """(µ, raw log σ): µ = matrix·x + shift, σ constant."""

    def __init__(self, matrix: Tensor, shift: Tensor, raw: Tensor) -> None:
        super().__init__()
        self.matrix, self.shift, self.raw = matrix, shift, raw

    def forward(self, x):
        mean = x @ self.matrix.T + self.shift
        return torch.cat((mean, self.raw.expand_as(mean)), dim=1)


class BumpLogit(nn.Module):
    """The logit of a bump."""

    def __init__(self, bump: Bump) -> None:
        super().__init__()
        self.bump = bump

    def forward(self, x):
        log_p = self.bump.log_prob(x)
        return (log_p - torch.log1p(-log_p.exp())).unsqueeze(1)


def raw_for(log_sigma: Tensor, limits: tuple[float, float]) -> Tensor:
    """What the soft limit (c·tanh(x/c), c the limit on that side) makes ``log_sigma`` of."""
    low, high = limits
    bound = torch.where(log_sigma < 0, torch.tensor(-low, dtype=DTYPE), torch.tensor(high).double())
    return bound * torch.atanh(log_sigma / bound)


def write_into(tzk: TzK, name: str, truth: Kind, *, off: float = 0.0, widen: float = 1.0) -> None:
    """Makes the knowledge ``name`` of a model be ``truth``.

    Args:
        off, widen: shift and factor that spoil its e = 1 encoder; 0 and 1 leave the exact
            posterior where that is diagonal.
    """
    kind = tzk.kinds()[name]
    size = kind.config.code_dim
    matrix, shift = truth.flow
    tzk.flow = LinearFlow(matrix.clone(), shift.clone())
    for e in (0, 1):
        decoder, encoder = kind.decoders[e], kind.encoders[e]
        decoder.head = AffineHead(
            truth.weights[e], truth.biases[e], raw_for(truth.sigmas[e].log(), decoder.limits)
        )
        # The map t → µ is affine: its matrix and shift by putting in 0 and the unit vectors.
        basis = torch.cat((torch.zeros(1, len(shift)), torch.eye(len(shift)))).to(DTYPE)
        mean, cov = truth.code_posterior(basis)
        spread = cov.diagonal().sqrt().log() + math.log(widen if e else 1.5)
        encoder.flow = VectorFlow(size, steps=0, width=1, generator=generator(0))
        encoder.trunk = AffineHead(
            (mean[1:] - mean[0]).T, mean[0] + (off if e else 0.0), raw_for(spread, encoder.limits)
        )
    kind.c_discriminator.trunk = BumpLogit(truth.exists)
    kind.t_discriminator.trunk = BumpLogit(truth.seen)
    kind.existence.fill_(truth.existence)


def undo_coupling(flow) -> None:
    """Makes a flow the identity: a coupling at zero scales by σ(2), which ActNorm takes back."""
    for step in flow.layers:
        norm, coupling = step.layers[0], step.layers[-1]
        moved = slice(0, 1) if coupling.flip else slice(1, 2)
        norm.log_scale[moved] = FLOOR * math.tanh(math.log1p(math.exp(-2.0)) / FLOOR)


@dataclass
class World:
    """A model and the truth about it: knowledge ``a``, and ``b`` on its code."""

    model: TzK
    a: Kind
    b: Kind


def world(*, off: float = 0.0, widen: float = 1.0) -> World:
    """2-D observations, 2-D codes, 1-D codes on these.

    The diagonal W and Q make p(c ∣ e=1, t) of ``a`` diagonal, though A is not, so that its encoder
    can be exact.
    """
    a = Kind(
        flow=(tensor([1.5, 0.4], [-0.3, 0.8]), tensor(0.2, -0.5)),
        weights=[torch.diag(tensor(0.3, 0.2)), torch.diag(tensor(0.9, -1.2))],
        biases=[tensor(0.5, -0.4), tensor(-0.3, 0.6)],
        sigmas=[tensor(0.9, 1.1), tensor(0.5, 0.7)],
        exists=Bump(0.8, tensor(1.0, -0.8), torch.diag(tensor(1.5, 0.7))),
        seen=Bump(0.9, tensor(0.1, 0.4), tensor([0.8, 0.2], [0.2, 0.5])),
    )
    b = Kind(
        flow=(tensor([1.1, -0.2], [0.3, 1.4]), tensor(-0.1, 0.3)),
        weights=[tensor([0.3], [0.1]), tensor([0.8], [-0.5])],
        biases=[tensor(0.1, 0.3), tensor(0.6, -0.2)],
        sigmas=[tensor(1.0, 0.8), tensor(0.6, 0.5)],
        exists=Bump(0.7, tensor(0.9), tensor([1.8])),
        seen=Bump(0.85, tensor(-0.2, 0.5), tensor([0.6, -0.1], [-0.1, 0.9])),
    )
    config = TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=2))
    model = TzK(config, generator=generator(0))
    for path, size in (("a", 2), ("a/b", 1)):
        small = KnowledgeConfig(code_dim=size, z_steps=0, code_steps=1, code_width=2)
        model.add_knowledge(path, small, generator=generator(1))
    model.double().eval()
    write_into(model, "a", a, off=off, widen=widen)
    write_into(model.find("a").child, "b", b)
    return World(model, a, b)
