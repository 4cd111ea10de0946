"""The objective of a step and its gradient as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..devices import moved
from ..graphs import GraphedStep
from ..model import TzK
from ..objective import Existence, FixedNoise, ObjectiveConfig, Terms, objective
from ..schedule import at

__all__ = ["GraphedObjective"]


class GraphedObjective:
    """:func:`~tzk_core.objective.objective` of whole batches of one shape, with its gradient.

    Args:
        model: on a GPU.
        parameters: that train.
        config: of the objective, ``elbo``.
        terms: which of its terms.
        paths: of the knowledge that something is known of.
    """

    def __init__(
        self,
        model: TzK,
        parameters: list[Tensor],
        config: ObjectiveConfig,
        terms: dict[str, bool],
        paths: list[str],
        record: Callable[..., Any] = GraphedStep,
    ) -> None:
        self.model, self.parameters, self.config, self.terms = model, parameters, config, terms
        self.paths, self.record = paths, record
        self._noise = 0  # numbers of it a step
        self._step: Any = None

    def __call__(
        self,
        t: Tensor,
        latent: tuple[Tensor, Tensor] | None,
        existence: Existence,
        balance: dict[str, Tensor],
        generator: torch.Generator,
        step: int,
    ) -> Terms | None:
        """The terms, their total with its gradient; None for a batch of another shape."""
        given = (t, *(latent or ()))
        # One tensor for all kinds: two dozen small copies take longer than a large one.
        known = [existence[path] for path in self.paths]
        whole = torch.stack(known) if known else t.new_zeros(0, len(t), dtype=torch.int8)
        weighted = [path for path in self.paths if path in balance]
        weights = torch.stack([balance[path] for path in weighted]) if weighted else None
        weights = t.new_zeros(0, len(t)) if weights is None else weights
        factors = torch.tensor(
            [at(self.config.kl_weight, step), at(self.config.discriminator_weight, step)]
        )

        def function(factors, whole, weights, noise, t, *latent) -> dict[str, Tensor]:
            return self._flat(
                dict(zip(self.paths, whole, strict=True)),
                dict(zip(weighted, weights, strict=True)),
                factors.unbind(),
                FixedNoise(noise),
                t,
                latent or None,
            )

        if self._step is None:
            self._noise = self._asked_for(t, latent, existence, balance, factors)
        noise = torch.randn(self._noise, generator=generator, dtype=t.dtype)
        device = self.model.device
        inputs = (moved(factors.to(t), device), whole, weights, moved(noise, device), *given)
        if self._step is None:
            self._step = self.record(function, self.parameters, inputs)
        if not self._step.fits(inputs):
            return None
        return self._terms(self._step(*inputs))

    def _asked_for(self, t, latent, existence, balance, factors) -> int:
        """How much noise a step draws."""
        noise = FixedNoise()
        with torch.no_grad():
            self._flat(existence, balance, moved(factors, t.device).unbind(), noise, t, latent)
        return noise.used

    def _flat(self, existence, balance, factors, noise, t, latent) -> dict[str, Tensor]:
        """Terms as a mapping of tensors, which is what a graph returns."""
        terms = objective(
            self.model,
            t,
            existence,
            self.config,
            noise,
            step=factors,
            latent=latent,
            balance=balance,
            **self.terms,
        )
        flat = {"total": torch.as_tensor(terms.total)}
        for kind, values in (("logs", terms.logs), ("moments", terms.moments)):
            flat |= {f"{kind} {name}": value.detach() for name, value in values.items()}
        return flat

    @staticmethod
    def _terms(flat: dict[str, Tensor]) -> Terms:
        terms = Terms(flat["total"])
        for key, value in flat.items():
            kind, _, name = key.partition(" ")
            if name:
                getattr(terms, kind)[name] = value.detach()
        return terms
