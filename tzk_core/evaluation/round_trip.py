"""How far decode(encode(t)) comes back from t, in grey levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.quantisation import LEVELS, dequantise, to_pixels
from ..model import TzK
from ..randomness import derived, rows
from .figures import mean_of
from .held_out import Figure

__all__ = ["RoundTrip", "round_trip"]

BATCH = 128


@dataclass(frozen=True)
class RoundTrip:
    """|decode(encode(t)) − t| of some images, in grey levels (1/256 of t)."""

    images: int
    largest: float  # on any element of any image
    median_of_largest: float  # over images, of each one's largest
    median: float  # over all elements
    changed: Figure  # share of the images of which any level comes back another
    not_finite: int  # images that do not come back at all; they count as changed, and above


@torch.no_grad()
def round_trip(
    model: TzK,
    pixels: Tensor,
    *,
    seed: int,
    name: str,
    tick: Callable[[int], None] | None = None,
) -> RoundTrip:
    """In the model's own precision, float32 as a rule.

    Args:
        pixels: uint8 (N, C, H, W).
        seed, name: of the dequantisation, ``name`` telling sources apart.
        tick: called with the number of images of each batch.
    """
    errors, changed = [], []
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        noise = rows(derived(seed, "round trip", name, start), len(part)).uniform(*part.shape[1:])
        t = dequantise(part, noise).to(model.reference)
        back, _ = model.flow.decode(model.flow.encode(t)[0])
        errors.append(((back - t).abs().double() * LEVELS).flatten(1).cpu())
        changed.append((to_pixels(back).cpu() != part).flatten(1).any(1))
        if tick is not None:
            tick(len(part))
    error = torch.cat(errors)
    lost = ~error.isfinite().all(1)
    error = error.nan_to_num(nan=torch.inf)
    largest = error.amax(1)
    return RoundTrip(
        images=len(error),
        largest=float(largest.max()),
        median_of_largest=float(largest.median()),
        median=float(error.flatten().median()),
        changed=mean_of(torch.cat(changed) | lost, "images that come back changed", "share"),
        not_finite=int(lost.sum()),
    )
