"""E over t ~ p(t) of p_enc(e=1 ∣ t): what the `encoder` estimator divides by, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..likelihood import fit_encoder_rate
from ..model import TzK
from ..randomness import derived
from .held_out import Figure

__all__ = ["encoder_rates"]

BATCH = 500


def encoder_rates(
    model: TzK, *, draws: int, seed: int, tick: Callable[[int], None] | None = None
) -> dict[str, Figure]:
    """Fits and stores the rate of every root kind, in memory, from ``draws`` samples of p(t).

    The standard errors are those over the means of batches of 500 samples. A batch with a sample
    that is not finite, which a flow may give now and then, is left out and not counted.

    Args:
        draws: rounded up to a whole number of batches.
        tick: called with the number of samples of each batch.
    """
    means: dict[str, list[float]] = {name: [] for name in model.kinds()}
    batch = min(BATCH, draws)
    for number in range(math.ceil(draws / batch)):
        source = derived(seed, "encoder rate", number)
        fit_encoder_rate(model, draws=batch, generator=source, batch=batch)
        for name, kind in model.kinds().items():
            means[name].append(float(kind.encoder_rate))
        if tick is not None:
            tick(batch)
    found = {}
    for name, kind in model.kinds().items():
        each = torch.tensor(means[name], dtype=torch.float64)
        each = each[each.isfinite()]
        error = float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.nan
        found[name] = Figure(
            f"E p_enc(e = {name}|t)", float(each.mean()), error, len(each) * batch, "probability"
        )
        kind.encoder_rate.fill_(found[name].mean)
    return found
