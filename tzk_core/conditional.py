"""p(t) and p(t | k) as distributions: a density and a sampler each (paper, Section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .densities import standard_normal
from .errors import InvalidRequest
from .found import Found, ToldOfFound
from .likelihood import estimate
from .lineage import Lineage
from .randomness import Rows, fresh_seed, rows

if TYPE_CHECKING:
    from .model import TzK

__all__ = ["Conditional", "Draw", "Observations", "Prior"]


@dataclass
class Draw(ToldOfFound):
    """What a call of ``draw`` returns."""

    images: Tensor  # t, (n, *observation shape)
    codes: list[Tensor]  # (n, C_j) for each step of the path, root first; empty for the prior
    seeds: list[int]  # one a row: n = 1 with that seed gives that row again
    found: Found  # how, row by row


class Observations(Distribution):
    """What the distributions over observations share."""

    arg_constraints: ClassVar[dict] = {}
    has_rsample = False

    def __init__(self, model: TzK, temperature: float) -> None:
        if not temperature >= 0 or temperature == float("inf"):
            raise InvalidRequest(
                f"temperature must be a finite number ≥ 0, got {temperature}",
                pointer="/temperature",
            )
        self.model, self.temperature = model, float(temperature)
        super().__init__(event_shape=torch.Size(model.observation_shape), validate_args=False)

    @property
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, sample_shape=(), *, generator: torch.Generator | Rows | None = None) -> Tensor:
        """t, (*sample_shape, *observation shape); ``None`` takes fresh entropy of the system."""
        shape = torch.Size(sample_shape)
        drawn = self._draw(rows(generator, shape.numel()))
        return drawn.images.reshape(*shape, *self.event_shape)

    def draw(self, n: int, *, seed: int | None = None, rows: Rows | None = None) -> Draw:
        """n observations, row i from a generator of its own seeded ``(seed + i) mod 2**63``.

        Args:
            n: how many.
            seed: of the first row; ``None`` takes a fresh one, which ``Draw.seeds`` tells.
            rows: the generators themselves, for a batch of strangers.
        """
        if rows is None:
            rows = Rows.from_seed(fresh_seed() if seed is None else seed, n)
        return self._draw(rows)

    def _latent_noise(self, source: Rows) -> Tensor:
        like = self.model.reference
        shape = self.model.latent_shape
        return self.temperature * source.normal(*shape, dtype=like.dtype, device=like.device)


class Prior(Observations):
    """p(t): N(0, I) on z through the t-flow (paper, Section 2)."""

    def __init__(self, model: TzK, temperature: float = 1.0) -> None:
        super().__init__(model, temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(t) in nats, exact, (B,)."""
        z, log_det = self.model.flow.encode(value)
        return standard_normal(z) + log_det

    @torch.no_grad()
    def _draw(self, source: Rows) -> Draw:
        t, _ = self.model.flow.decode(self._latent_noise(source))
        return Draw(t, [], source.seeds, Found.unasked(len(source), self.temperature == 1.0))


class Conditional(Observations):
    """p(t | e of one path), made by :meth:`tzk_core.model.TzK.given`.

    Sampling is exact: the deepest code c ~ p_dec(c) is kept with probability p_dec(e∣c), then its
    ancestors' codes, then t ~ p_dec(t∣e¹=1, c¹) (design, section 6). ``paper_sampler`` skips the
    acceptance, as Appendix C does.
    """

    def __init__(
        self,
        model: TzK,
        lineage: Lineage,
        *,
        temperature: float = 1.0,
        code_temperature: float = 1.0,
        paper_sampler: bool = False,
    ) -> None:
        super().__init__(model, temperature)
        self.lineage = lineage
        self.code_temperature = code_temperature
        self.paper_sampler = paper_sampler

    def log_prob(
        self,
        value: Tensor,
        *,
        estimator: str = "importance",
        draws: int = 16,
        generator: torch.Generator | Rows | None = None,
    ) -> Tensor:
        """log p(t | k) in nats by :func:`tzk_core.likelihood.estimate`, (B,)."""
        return estimate(
            self.model,
            self.lineage,
            value,
            estimator=estimator,
            draws=draws,
            generator=generator,
        ).log_prob

    def log_prob_given_code(self, t: Tensor, c: Tensor) -> Tensor:
        """log p_dec(t ∣ e¹, c¹) of the path's first knowledge (paper, Eq. 6), (B,)."""
        z, log_det = self.model.flow.encode(t)
        return self.lineage.decoder.log_prob(z, c) + log_det

    @torch.no_grad()
    def _draw(self, source: Rows) -> Draw:
        accepted = self.lineage.accepted_deepest(
            source, temperature=self.code_temperature, shortcut=self.paper_sampler
        )
        like = self.model.reference
        noise = [
            self.code_temperature * part for part in self.lineage.draw_noise(source, like=like)[:-1]
        ]
        codes = self.lineage.ascend(accepted.codes, noise)
        z = self.lineage.decoder.transform(self._latent_noise(source), codes[0])
        t, _ = self.model.flow.decode(z)
        sizes = accepted.sample_sizes
        plain = self.temperature == self.code_temperature == 1.0 and not self.paper_sampler
        found = Found(
            None if self.paper_sampler else accepted.tries,
            sizes,
            [plain and size is None for size in sizes],
        )
        return Draw(t, codes, source.seeds, found)
