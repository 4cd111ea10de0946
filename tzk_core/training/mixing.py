r"""How often each image is drawn, and the order of an epoch that follows from it.

Image i is drawn with a probability :math:`p_i` that the recipe's weights say (1/N without any). A
stage that is balanced draws it with :math:`q_i = p_i f_i` instead, so that an image that has a kind
and one that has it not are drawn equally often:

.. math::
    f_i = \frac1K \sum_k \frac{1/2}{\pi_k(e_{ik})}, \qquad
    \pi_k(1) = 1 - \pi_k(0) = P_p(e_k = 1 \mid e_k \text{ known}),

where a kind that is unknown of an image contributes 1. The terms of the discriminators of kind k
are weighted by :math:`w_{ik} = (1/2) / (\pi_k(e_{ik}) f_i)`, so that *each* sees positives and
negatives of weight one half, distributed within both as under p: with one kind all weights are 1.
Such logits are shifted by a constant, and :math:`\log \pi_k / (1 - \pi_k)` sets them right (design,
section 5, with :math:`\pi_b = 1/2`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import TzK
from ..randomness import derived

__all__ = ["Balance", "Order", "correct_logits", "corrected_logits"]


class Order:
    """Which image is drawn when: a function of (seed, stage, step) alone, so that a resumed run
    goes on where it was.

    An epoch has as many draws as there are images. Without ``shares`` each is drawn once; with
    them image i is drawn N·shares[i] times, rounded down or up so that it is right on average
    (systematic resampling).

    Args:
        count: N.
        shares: the probability of each image, float64 (N,), summing to 1; None for 1/N.
    """

    def __init__(self, count: int, shares: Tensor | None = None) -> None:
        self.count = count
        self.shares = None if shares is None else shares.double() / shares.double().sum()
        self._epoch: tuple[tuple[int, int, int], Tensor] | None = None

    def batch(self, size: int, step: int, seed: int, stage: int) -> Tensor:
        """The numbers of the images that step ``step`` of a stage sees, int64 (min(size, N),).

        Batches are whole: what is left at the end of an epoch is not seen in it.
        """
        size = min(size, self.count)
        epoch, place = divmod(step, self.count // size)
        key = (seed, stage, epoch)
        if self._epoch is None or self._epoch[0] != key:  # a million numbers are not drawn a step
            self._epoch = key, self._draw(derived(seed, "order", stage, epoch))
        return self._epoch[1][place * size : (place + 1) * size]

    def _draw(self, generator: torch.Generator) -> Tensor:
        order = torch.randperm(self.count, generator=generator)
        if self.shares is None:
            return order
        # Images with equal shares side by side, shuffled among themselves: so every group gets its
        # share of the epoch to one draw, and which of its images go without is by chance.
        line = order[self.shares[order].argsort(stable=True)]
        edges = self.shares[line].cumsum(0) * self.count
        start = torch.rand((), generator=generator, dtype=torch.float64)
        places = torch.arange(self.count, dtype=torch.float64) + start
        drawn = line[torch.searchsorted(edges, places, right=True).clamp(max=self.count - 1)]
        return drawn[torch.randperm(self.count, generator=generator)]


@dataclass
class Balance:
    """What balanced draws need, worked out once from what is known of the training images.

    Args:
        existence: e of the paths that are balanced, int8 (N,) each.
        shares: p of each image, float64 (N,); None for 1/N.
        rows: whether the draws are balanced too (q); without it images are drawn by p, f = 1, and
            the weights alone balance, which gives the same discriminators with more noise.
    """

    existence: dict[str, Tensor]
    shares: Tensor | None = None
    rows: bool = True
    rates: dict[str, float] = field(init=False)  # π: of the paths with both values

    def __post_init__(self) -> None:
        self.rates = {}
        for path, e in self.existence.items():
            known = e >= 0
            p = known.double() if self.shares is None else self.shares.double() * known
            rate = float((p * (e == 1)).sum() / p.sum()) if known.any() else math.nan
            if 0 < rate < 1:
                self.rates[path] = rate
        # Kinds on images are what a batch can be balanced for; with classes below them it would
        # be a mean of so many kinds that none was balanced. The weights see to the classes.
        above = [path for path in self.rates if "/" not in path] or list(self.rates)
        self._factors = self._mean_factor(above) if self.rows else None

    @property
    def draws(self) -> Tensor | None:
        """q of each image, float64 (N,); None where there is nothing to balance."""
        if self._factors is None:
            return self.shares
        return self._factors if self.shares is None else self.shares.double() * self._factors

    def weights(self, index: Tensor) -> dict[str, Tensor]:
        """w of some images for the discriminators of each path, float32 (B,); 0 where unknown."""
        return {
            path: (self._factor(path, index) / self._drawn(index)).float()
            * (self.existence[path][index] >= 0)
            for path in self.rates
        }

    @property
    def corrections(self) -> dict[str, float]:
        """What must be added to the logits of each path once it is trained."""
        return {path: math.log(rate) - math.log1p(-rate) for path, rate in self.rates.items()}

    def _drawn(self, index: Tensor) -> Tensor | float:
        return 1.0 if self._factors is None else self._factors[index]

    def _mean_factor(self, paths: list[str]) -> Tensor | None:
        if not paths:
            return None
        # A running sum: K × N doubles would be 1.6 GB for 200 kinds on a million images.
        total = self._factor(paths[0], slice(None))
        for path in paths[1:]:
            total += self._factor(path, slice(None))
        return total.div_(len(paths))

    def _factor(self, path: str, index: Tensor | slice) -> Tensor:
        e, rate = self.existence[path][index], self.rates[path]
        factor = torch.where(e == 1, 0.5 / rate, 0.5 / (1 - rate)).double()
        return torch.where(e < 0, torch.ones_like(factor), factor)


def correct_logits(model: TzK, corrections: dict[str, float]) -> None:
    """Adds a constant to the logits of both discriminators of each path, for ever.

    To be called once, after a balanced stage, where the averaged weights are put in place.
    """
    with torch.no_grad():
        for bias, shift in _biases(model, corrections):
            bias += shift


@contextlib.contextmanager
def corrected_logits(model: TzK, corrections: dict[str, float]) -> Iterator[None]:
    """The logits are corrected within the block, and afterwards bit for bit what they were."""
    kept = [(bias, bias.detach().clone()) for bias, _ in _biases(model, corrections)]
    correct_logits(model, corrections)
    try:
        yield
    finally:
        with torch.no_grad():
            for bias, before in kept:
                bias.copy_(before)


def _biases(model: TzK, corrections: dict[str, float]) -> Iterator[tuple[Tensor, float]]:
    for path, shift in corrections.items():
        kind = model.find(path)
        for discriminator in (kind.t_discriminator, kind.c_discriminator):
            yield discriminator.trunk.last.bias, shift
