r"""Several kinds at once, and absent ones (paper, Eq. 4; design, section 3).

With :math:`p(t \mid \bar k) \propto \prod_i p(t \mid k^i) / p(t)^{K-1}` the factors share the
t-flow, so its determinant cancels and the product lives in z, jointly with the codes:

.. math::
    \prod_i p(c^i)\, p(e^i \mid c^i)\, p(z \mid e^i, c^i) \;/\; N(z)^{K-1}

Without z-flows that is a Gaussian in z given all codes: tuples of codes are resampled by its
normaliser, then z is drawn. With z-flows it is sampled by tempered sequential Monte Carlo: from the
first kind's joint (drawn exactly) to the product, with Hamiltonian moves. It is unnormalised, so it
is offered for sampling and never as a density.

Siblings below a parent compose in the parent's code; kinds of different levels are refused.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .conditional import Draw, Observations
from .densities import standard_normal
from .errors import InvalidRequest
from .found import Found
from .lineage import Lineage
from .randomness import Rows
from .smc import NotReached, anneal

if TYPE_CHECKING:
    from .model import TzK

__all__ = ["LOW_SAMPLE_SIZE", "Composition", "LowSampleSize", "hardly_overlap"]

PARTICLES = 64
TUPLES = 256
LOW_SAMPLE_SIZE = 4.0


class LowSampleSize(UserWarning):
    """Several kinds hardly overlap: draws may not follow their product."""


def hardly_overlap(title: str | None, size: float) -> str:
    """The warning's text."""
    return (
        f"the effective sample size of {title} is {size:.1f}: the kinds hardly overlap, and draws "
        "may not follow their product"
    )


class Composition(Observations):
    """p(t | several e's) up to its normaliser, made by :meth:`tzk_core.model.TzK.given`.

    Every row runs a population of its own from its own generator, so row i does not depend on
    the others.

    Args:
        lineages: one for each kind, all siblings.
        temperature: scales the noise that the first kind's z is made of in the closed form, and
            is refused in the tempered one where it is not 1.
    """

    def __init__(self, model: TzK, lineages: list[Lineage], *, temperature: float = 1.0) -> None:
        super().__init__(model, temperature)
        ancestors = {lineage.path.rpartition("/")[0] for lineage in lineages}
        if len(ancestors) > 1:
            raise InvalidRequest(
                f"{', '.join(lineage.path for lineage in lineages)} are of different levels or "
                "parents; only siblings compose",
                pointer="/given",
            )
        self.lineages = lineages
        self.level = lineages[0].nodes[-1][0]  # the TzK whose z they share
        self.parents = lineages[0].nodes[:-1]
        self.kinds = [lineage.last for lineage in lineages]
        self.values = [lineage.values[-1] for lineage in lineages]
        self.decoders = [k.decoders[e] for k, e in zip(self.kinds, self.values, strict=True)]
        self.closed_form = all(len(decoder.flow.layers) == 0 for decoder in self.decoders)
        if not self.closed_form and temperature != 1.0:
            raise InvalidRequest(
                "several kinds with z-flows are sampled at temperature 1 only",
                pointer="/temperature",
            )

    def log_prob(self, value: Tensor, **_) -> Tensor:
        """Refused: a product of conditionals is unnormalised.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(
            "several kinds at once are a product whose normaliser is unknown: it can be sampled, "
            "but has no log_prob",
            pointer="/given",
        )

    # The Hamiltonian moves need gradients, which a caller's inference mode would forbid.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _draw(self, source: Rows) -> Draw:
        latents, codes, sizes = (
            self._gaussian(source) if self.closed_form else self._tempered(source)
        )
        smallest = float(sizes.min()) if len(sizes) else math.nan
        if smallest < LOW_SAMPLE_SIZE:
            warnings.warn(hardly_overlap(self._title, smallest), LowSampleSize, stacklevel=3)
        t = self.level.flow.decode(latents)[0]
        # What the siblings compose is the code of their parent; go on up to the image.
        chain = list(codes)
        for depth in range(len(self.parents) - 1, -1, -1):
            tzk, parent = self.parents[depth]
            decoder = parent.decoders[1]
            chain.insert(0, t)
            shape = decoder.latent_shape
            noise = source.normal(*shape, dtype=t.dtype, device=t.device)
            if depth == 0:
                noise = self.temperature * noise
            t = tzk.flow.decode(decoder.transform(noise, t))[0]
        found = Found(None, sizes.tolist(), [False] * len(source))
        return Draw(t, chain, source.seeds, found)

    @property
    def _title(self) -> str:
        return ", ".join(
            ("" if lineage.values[-1] else "no ") + lineage.path for lineage in self.lineages
        )

    # -- without z-flows: a Gaussian in z given the codes ------------------------------------------

    def _gaussian(self, source: Rows) -> tuple[Tensor, list[Tensor], Tensor]:
        """Tuples of codes resampled by the product's normaliser, then z from its Gaussian."""
        count, like = len(source), self.model.reference
        repeated = _repeat(source, TUPLES)
        codes = [
            _accepted(self._alone(lineage), repeated).reshape(count, TUPLES, -1)
            for lineage in self.lineages
        ]
        bases = [
            tuple(part.reshape(count * TUPLES, -1) for part in decoder.base(c.flatten(0, 1)))
            for decoder, c in zip(self.decoders, codes, strict=True)
        ]
        mean, log_sigma, log_z = self._product(bases)
        log_w = log_z.reshape(count, TUPLES)
        weights = log_w.softmax(1)
        sizes = 1 / weights.square().sum(1)
        u = source.uniform(1, dtype=like.dtype, device=like.device)
        picked = torch.searchsorted(weights.cumsum(1), u).clamp(max=TUPLES - 1).squeeze(1)
        rows = torch.arange(count, device=like.device)
        flat = rows * TUPLES + picked
        shape = self.level.latent_shape
        noise = source.normal(*shape, dtype=like.dtype, device=like.device)
        scale = self.temperature if not self.parents else 1.0
        z = mean[flat].reshape(count, *shape) + scale * noise * log_sigma[flat].exp().reshape(
            count, *shape
        )
        return z, [c[rows, picked] for c in codes], sizes

    def _product(self, bases: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        r"""µ, log σ and log Z of :math:`\prod_i N(z; µ_i, σ_i^2) / N(z; 0, 1)^{K-1}`."""
        spare = len(bases) - 1
        precision = sum((-2 * log_sigma).exp() for _, log_sigma in bases) - spare
        if not bool((precision > 0).all()):
            raise InvalidRequest(
                f"{self._title} have no product: together they are wider than p(t), so their "
                "precision is not positive",
                pointer="/given",
            )
        weighted = sum((-2 * log_sigma).exp() * mean for mean, log_sigma in bases)
        mean = weighted / precision
        quadratic = sum((-2 * s).exp() * m.square() for m, s in bases)
        # The normalisers' 2π cancel: K Gaussians over K − 1 leave the one that integrates to it.
        log_z = -0.5 * (precision.log() + quadratic - precision * mean.square()) - sum(
            log_sigma for _, log_sigma in bases
        )
        return mean, -0.5 * precision.log(), log_z.sum(1)

    # -- with z-flows: tempered sequential Monte Carlo ---------------------------------------------

    def _tempered(self, source: Rows) -> tuple[Tensor, list[Tensor], Tensor]:
        """One particle of each row's population at the end of the anneal.

        The state is (ε, η¹ … η^K), all N(0, I) under the reference: z = T¹(ε, c¹), cⁱ = f(ηⁱ).
        Whether the product can be normalised is not known here, as it is of Gaussians.

        Raises:
            InvalidRequest: the anneal does not reach the product.
        """
        count, like = len(source), self.model.reference
        repeated = _repeat(source, PARTICLES)
        where = {"dtype": like.dtype, "device": like.device}
        noise = [
            _accepted_noise(self._alone(lineage), repeated).reshape(count, PARTICLES, -1)
            for lineage in self.lineages
        ]
        epsilon = source.normal(PARTICLES, math.prod(self.level.latent_shape), **where)
        state = torch.cat([epsilon, *noise], dim=2)
        sizes = [part.shape[2] for part in (epsilon, *noise)]
        try:
            particles, ancestors = anneal(
                state, source, lambda x: self._log_tempered(x.split(sizes, dim=1))
            )
        except NotReached as error:
            raise InvalidRequest(
                f"{self._title} cannot be sampled together: {error}", pointer="/given"
            ) from error
        u = source.uniform(dtype=like.dtype, device=like.device)
        picked = (u * PARTICLES).long().clamp(max=PARTICLES - 1)
        chosen = particles[torch.arange(count, device=like.device), picked]
        z, codes = self._unpack(chosen.split(sizes, dim=1))
        return z, codes, ancestors

    def _unpack(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        epsilon, *noise = parts
        codes = [k.code_prior.transform(n) for k, n in zip(self.kinds, noise, strict=True)]
        shaped = epsilon.reshape(-1, *self.level.latent_shape)
        return self.decoders[0].transform(shaped, codes[0]), codes

    def _log_tempered(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """(log of what is there at every temperature, log of what is tempered), each (B,)."""
        z, codes = self._unpack(parts)
        fixed = sum(standard_normal(part) for part in parts)
        for kind, e, c in zip(self.kinds, self.values, codes, strict=True):
            fixed = fixed + kind.c_discriminator.log_prob(c, e)
        tempered = -(len(self.kinds) - 1) * standard_normal(z)
        for decoder, c in zip(self.decoders[1:], codes[1:], strict=True):
            tempered = tempered + decoder.log_prob(z, c)
        return fixed, tempered

    def _alone(self, lineage: Lineage) -> Lineage:
        """The kind without its ancestors."""
        alone = Lineage(lineage.nodes[-1:], True, lineage.path)
        alone.values = [lineage.values[-1]]
        return alone


def _repeat(source: Rows, times: int) -> Rows:
    """Every row ``times`` over, the copies drawing in turn from that row's own generator."""
    return source[[row for row in range(len(source)) for _ in range(times)]]


def _accepted(lineage: Lineage, source: Rows) -> Tensor:
    return lineage.accepted_deepest(source, temperature=1.0, shortcut=False).codes


def _accepted_noise(lineage: Lineage, source: Rows) -> Tensor:
    """The N(0, I) noise of accepted codes."""
    prior = lineage.last.code_prior
    c = _accepted(lineage, source)
    return c if prior.flow is None else prior.flow.encode(c)[0]
