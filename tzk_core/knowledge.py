r"""One knowledge type k = (e, c): its four factors (paper, Eq. 5–7 and Appendix B).

=====================  =================================================================
p_dec(c)               :class:`CodePrior`
p_enc(c ∣ e, t)        :class:`CodeEncoder`, one set of weights for each e
p_dec(z ∣ e, c)        :class:`CodeDecoder`, one set of weights for each e; with the t-flow's
                       log-determinant it is p_dec(t ∣ e, c)
p_enc(e ∣ t)           :class:`Discriminator` on observations
p_dec(e ∣ c)           :class:`Discriminator` on codes
=====================  =================================================================

Each density can be evaluated and sampled, the paper's "density estimator and sampler"
(Section 3). The t-flow is not known here: observations come in, latent states ``z`` come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .config import KnowledgeConfig
from .densities import gaussian, soft_limit, standard_normal
from .flows import ActNorm, StepFlow, VectorFlow
from .networks import ImageTrunk, MapHead, VectorTrunk

if TYPE_CHECKING:
    from .siblings import Stack

__all__ = ["CodeDecoder", "CodeEncoder", "CodePrior", "Discriminator", "Knowledge"]


class CodePrior(nn.Module):
    """p_dec(c): N(0, I), or a vector flow to it (anchored if volume-preserving)."""

    def __init__(self, config: KnowledgeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.code_dim = config.code_dim
        self.flow = (
            None
            if config.code_prior == "normal"
            else VectorFlow(
                config.code_dim,
                steps=config.code_steps,
                width=config.code_width,
                generator=generator,
                volume_preserving=config.code_prior == "volume_preserving",
            )
        )

    def log_prob(self, c: Tensor) -> Tensor:
        """log p_dec(c), (B, C) → (B,)."""
        if self.flow is None:
            return standard_normal(c)
        base, log_det = self.flow.encode(c)
        return standard_normal(base) + log_det

    def transform(self, noise: Tensor) -> Tensor:
        """c from N(0, I) noise, (B, C) → (B, C)."""
        return noise if self.flow is None else self.flow.decode(noise)[0]


class CodeEncoder(nn.Module):
    """p_enc(c ∣ e, t) for one e: regressor t → (µ, σ) of the base, then a vector flow to c.

    ::

        t ── ActNorm ── trunk ── (µ, log σ) (B, 2C);  u = µ + σ·ε;  c = flow.decode(u)
    """

    def __init__(
        self, config: KnowledgeConfig, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.limits = config.code_log_sigma
        self.norm = ActNorm(shape[0])
        self.trunk = _trunk(
            shape, 2 * config.code_dim, config.encoder_width, "flatten", config.trunk, generator
        )
        self.flow = VectorFlow(
            config.code_dim, steps=config.code_steps, width=config.code_width, generator=generator
        )

    def base(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(µ, log σ), each (B, C)."""
        mean, log_sigma = self.trunk(self.norm.encode(t)[0]).chunk(2, dim=1)
        return mean, soft_limit(log_sigma, self.limits)

    def sample(self, base: tuple[Tensor, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """(c, log p_enc(c∣e,t)) from N(0, I) noise, reparametrised."""
        mean, log_sigma = base
        c, log_det = self.flow.decode(mean + log_sigma.exp() * noise)
        return c, standard_normal(noise) - log_sigma.sum(1) - log_det

    def log_prob(self, base: tuple[Tensor, Tensor], c: Tensor) -> Tensor:
        """log p_enc(c∣e,t), (B,)."""
        u, log_det = self.flow.encode(c)
        return gaussian(u, *base) + log_det

    @torch.no_grad()
    def initialize(self, t: Tensor) -> None:
        self.norm.initialize(t)
        # µ = 0 and σ = 1 at the start, so what enters the flow is normal already.
        for module in self.flow.modules():
            if isinstance(module, ActNorm):
                module.initialized.fill_(True)


class CodeDecoder(nn.Module):
    """p_dec(z ∣ e, c) for one e: regressor c → (µ, σ) on z's shape, then the z-flow.

    ::

        c ── ActNorm ── head ── (µ, log σ), each of z's shape, and features
        z ── z-flow.encode(·, context) ── u,  u ~ N(µ, σ²)

    The context, if the z-flow has one, is the map of features that the head works (µ, log σ) out
    of; on vectors it is c itself. So every place of z sees what the code says about that place.
    """

    def __init__(
        self, config: KnowledgeConfig, latent: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.limits = config.z_log_sigma
        self.latent_shape = latent
        self.sees_code = config.z_context
        self.norm = ActNorm(config.code_dim)
        self.spatial = len(latent) == 3
        doubled = (2 * latent[0], *latent[1:])
        self.head = (
            MapHead(
                config.code_dim,
                doubled,
                config.decoder_width,
                generator,
                stem=config.decoder_stem,
                layers=config.decoder_layers,
                hidden=config.decoder_hidden,
            )
            if self.spatial
            else VectorTrunk(config.code_dim, doubled[0], config.decoder_width, generator)
        )
        context = config.decoder_width if self.spatial else config.code_dim
        self.flow = StepFlow(
            latent[0],
            config.z_steps,
            config.z_width,
            generator,
            spatial=self.spatial,
            context=context if config.z_context else 0,
        )

    def base(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """(µ, log σ) of u, each (B, *latent shape)."""
        return self._regress(c)[:2]

    def log_prob(self, z: Tensor, c: Tensor) -> Tensor:
        """log p_dec(z∣e,c), (B,)."""
        mean, log_sigma, context = self._regress(c)
        u, log_det = self.flow.encode(z, context)
        return gaussian(u, mean, log_sigma) + log_det

    def transform(self, noise: Tensor, c: Tensor) -> Tensor:
        """z from noise ε of the latent shape; N(0, I) gives z ~ p_dec(z∣e,c)."""
        mean, log_sigma, context = self._regress(c)
        return self.flow.decode(mean + log_sigma.exp() * noise, context)[0]

    def noise(self, z: Tensor, c: Tensor) -> Tensor:
        """The ε that :meth:`transform` makes this z of."""
        mean, log_sigma, context = self._regress(c)
        return (self.flow.encode(z, context)[0] - mean) * (-log_sigma).exp()

    @torch.no_grad()
    def initialize(self, z: Tensor, c: Tensor) -> None:
        self.norm.initialize(c)
        self.flow.initialize(z, self._regress(c)[2])

    def _regress(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(µ, log σ) of u, each (B, *latent shape), and the z-flow's context."""
        context = c
        if self.spatial:
            moments, context = self.head(self.norm.encode(c)[0])
        else:
            moments = self.head(self.norm.encode(c)[0])
        mean, log_sigma = moments.chunk(2, dim=1)
        return mean, soft_limit(log_sigma, self.limits), context if self.sees_code else None


class Discriminator(nn.Module):
    """p(e = 1 ∣ x) by its logit, x an observation or a code."""

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        head: str,
        trunk: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.norm = ActNorm(shape[0])
        self.trunk = _trunk(shape, 1, width, head, trunk, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The logit, (B, …) → (B,)."""
        return self.trunk(self.norm.encode(x)[0]).squeeze(1)

    def log_prob(self, x: Tensor, e: int) -> Tensor:
        """log p(e ∣ x), (B,)."""
        return logsigmoid(self(x) if e else -self(x))


class Knowledge(nn.Module):
    """The four factors of one knowledge type.

    ``existence`` is p(e = 1) = E over p_dec(c) of p_dec(e=1∣c), and ``encoder_rate`` E over p(t) of
    p_enc(e=1∣t), NaN until fitted; both are refitted after training
    (:func:`tzk_core.likelihood.fit_existence`, ``fit_encoder_rate``).
    ``child`` is a TzK over this code, or None; the model
    sets it, since a child is the same class as the model itself.

    Args:
        config: sizes.
        shape: of the observation t.
        latent: of the latent state z.
        generator: draws first weights and shuffles.
    """

    def __init__(
        self,
        config: KnowledgeConfig,
        shape: tuple[int, ...],
        latent: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.code_prior = CodePrior(config, generator)
        self.encoders = nn.ModuleList(CodeEncoder(config, shape, generator) for _ in range(2))
        self.decoders = nn.ModuleList(CodeDecoder(config, latent, generator) for _ in range(2))
        width = config.discriminator_width
        self.t_discriminator = Discriminator(
            shape, width, config.discriminator_head, config.trunk, generator
        )
        self.c_discriminator = Discriminator(
            (config.code_dim,), width, "flatten", config.trunk, generator
        )
        self.register_buffer("existence", torch.tensor(0.5))
        self.register_buffer("encoder_rate", torch.tensor(float("nan")))
        self.child = None
        self.stack: Stack | None = None  # while it trains side by side with others

    @torch.no_grad()
    def initialize(self, t: Tensor, z: Tensor, e: Tensor, generator: torch.Generator) -> None:
        """Sets every ActNorm from data: observations, their z, and e ∈ {0, 1, −1 unknown}.

        Where fewer than two observations have some e, that branch starts from all of them.
        """
        self.t_discriminator.norm.initialize(t)
        codes = []
        for value in (0, 1):
            rows = (e == value).nonzero().squeeze(1)
            rows = rows if len(rows) >= 2 else torch.arange(len(t), device=t.device)
            self.encoders[value].initialize(t[rows])
            noise = torch.randn(len(rows), self.config.code_dim, generator=generator)
            c, _ = self.encoders[value].sample(self.encoders[value].base(t[rows]), noise.to(t))
            self.decoders[value].initialize(z[rows], c)
            codes.append(c)
        both = torch.cat(codes)
        self.c_discriminator.norm.initialize(both)
        if self.code_prior.flow is not None:
            self.code_prior.flow.initialize(both)


def _trunk(shape, outputs, width, head, trunk, generator) -> nn.Module:
    if len(shape) == 1:
        return VectorTrunk(shape[0], outputs, width, generator)
    levels = 3
    while shape[1] % 2**levels or shape[2] % 2**levels:
        levels -= 1
    return ImageTrunk(
        shape, outputs, width, generator, levels=levels, head=head, paper=trunk == "paper"
    )
