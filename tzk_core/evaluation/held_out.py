"""Figures on held-out images: what a model is worth, and what its scores are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.quantisation import average_draws, nll_nats
from ..model import TzK
from ..randomness import derived

if TYPE_CHECKING:
    from ..training.dataset import Dataset

__all__ = ["Figure", "measure"]

BATCH = 128


@dataclass(frozen=True)
class Figure:
    """A mean with its standard error, of so many images."""

    name: str
    mean: float
    standard_error: float
    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.told} {self.unit} ({self.count} images)"

    @property
    def told(self) -> str:
        """The mean ± its standard error; three decimals, or more where those would say 0."""
        mean = (
            f"{self.mean:.3f}" if self.mean == 0 or abs(self.mean) >= 0.001 else f"{self.mean:.1e}"
        )
        error = "–" if math.isnan(self.standard_error) else f"{self.standard_error:.3f}"
        return f"{mean} ± {error}"


@torch.no_grad()
def measure(
    model: TzK,
    data: Dataset,
    *,
    count: int,
    draws: int,
    seed: int,
    only: list[str] | None = None,
    noise_draws: int = 1,
) -> tuple[list[Figure], Tensor]:
    """Bits/dim of the prior on all held-out images, and of each root kind on its own.

    Args:
        count: at most so many images, from the front of a seeded order.
        draws: codes of the importance estimate.
        only: root kinds; all by default.
        noise_draws: of the dequantisation, whose likelihoods are averaged.

    Returns:
        The figures, and log p(t) of every image by its first noise, as one request has it, nats,
        sorted.
    """
    index = torch.randperm(len(data), generator=derived(seed, "held out"))[:count]
    parts = list(index.split(BATCH))

    def observe(draw: int) -> list[Tensor]:
        again = (draw,) if draw else ()
        return [
            data.observations(p, derived(seed, "held out", i, *again)) for i, p in enumerate(parts)
        ]

    every = [observe(draw) for draw in range(noise_draws)]
    observed = every[0]
    by_draw = torch.stack(
        [torch.cat([model.prior.log_prob(t.to(model.device)).cpu() for t in o]) for o in every]
    )
    log_p = average_draws(by_draw)
    native = data.native_dims[index]
    figures = _bits(log_p, native, model, "p(t)")
    t = torch.cat(observed)
    figures.append(_round_trip(model, observed))
    for name, kind in model.kinds().items():
        e = data.known.existence.get(name)
        if e is None or (only is not None and name not in only) or not (e[index] == 1).any():
            continue
        own = e[index] == 1
        for estimator in ("importance", "reconstruction"):
            values = average_draws(
                torch.stack(
                    [
                        _given(model, name, torch.cat(o)[own], estimator, draws, seed, draw)
                        for draw, o in enumerate(every)
                    ]
                )
            )
            what = f"importance, {draws} draws" if estimator == "importance" else estimator
            figures += _bits(values, native[own], model, f"p(t|{name}), {what}")
        figures += _bits(log_p[own], native[own], model, f"p(t) on {name}")
        logits = torch.cat([kind.t_discriminator(c.to(model.device)).cpu() for c in t.split(BATCH)])
        known = e[index] >= 0
        right = ((logits > 0) == (e[index] == 1))[known].float()
        figures.append(_figure(f"p_enc(e={name}|t) right", right, "share"))
    return figures, by_draw[0].sort().values


def _given(
    model: TzK, name: str, t: Tensor, estimator: str, draws: int, seed: int, draw: int
) -> Tensor:
    """log p(t|kind) of one noise draw, (B,), on the CPU."""
    given, again = model.given(name), (draw,) if draw else ()
    values = [
        given.log_prob(
            chunk.to(model.device),
            estimator=estimator,
            draws=draws,
            generator=derived(seed, "held out", name, estimator, i, *again),
        ).cpu()
        for i, chunk in enumerate(t.split(BATCH))
    ]
    return torch.cat(values)


def _round_trip(model: TzK, observed: list[Tensor]) -> Figure:
    """The largest |decode(encode(t)) − t| on any element of any image."""
    largest = 0.0
    for t in observed:
        t = t.to(model.device)
        back, _ = model.flow.decode(model.flow.encode(t)[0])
        largest = max(largest, float((back - t).abs().max()))
    return Figure("largest round-trip error", largest, math.nan, sum(map(len, observed)), "of t")


def _bits(log_p: Tensor, native: Tensor, model: TzK, name: str) -> list[Figure]:
    dims = math.prod(model.observation_shape)
    nats = nll_nats(log_p, dims)
    figures = [_figure(name, nats / (dims * math.log(2)), f"bits/dim on D = {dims}")]
    if (native != dims).any():
        bits = nats / (native * math.log(2))
        sizes = sorted(set(native.tolist()))
        on = f"native D = {sizes[0]}" if len(sizes) == 1 else "each image's native D"
        figures.append(_figure(name, bits, f"bits/dim on {on}"))
    return figures


def _figure(name: str, values: Tensor, unit: str) -> Figure:
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Figure(name, float(values.mean()), error, len(values), unit)
