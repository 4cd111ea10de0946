"""Each item's random numbers come from its own seed, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

from torch import Tensor

from tzk_core.data.quantisation import dequantise
from tzk_core.devices import moved
from tzk_core.randomness import SEEDS, Rows, fresh_seed
from tzk_core.service.sizes import filled

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["ROWS_AT_ONCE", "filled_seeds", "noisy", "parts", "seed_of", "seeds_from"]

ROWS_AT_ONCE = 64
"""Images in one call of the model, so that a full batch of large requests fits into memory."""


def seed_of(asked: int | None) -> int:
    """The effective seed of a request: the one asked for, or a fresh one."""
    return fresh_seed() if asked is None else asked


def seeds_from(seed: int, count: int) -> list[int]:
    """The seeds of a request's images: image i has (seed + i) mod 2**63."""
    return [(seed + i) % SEEDS for i in range(count)]


def noisy(model: TzK, pixels: Tensor, rows: Rows) -> Tensor:
    """The observations of uint8 ``pixels`` (B, C, H, W), each with its own row's noise."""
    like = model.reference
    noise = rows.uniform(*pixels.shape[1:], dtype=like.dtype)
    return dequantise(moved(pixels, like.device), moved(noise, like.device))


def parts(count: int) -> Iterator[slice]:
    """``range(count)`` in slices of at most ``ROWS_AT_ONCE``."""
    for start in range(0, count, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, count))


def filled_seeds(seeds: Sequence[int]) -> Iterator[list[int]]:
    """``seeds`` in lists of fixed sizes, the last filled up with its own over again."""
    for part, size in filled(len(seeds), ROWS_AT_ONCE):
        yield list(islice(cycle(seeds[part]), size))
