"""Random numbers that belong to their row, whatever else is in the batch.

Image ``i`` of a call with seed ``s`` has a generator of its own on the CPU, seeded
``(s + i) mod 2**63`` (design, section 6). So ``n = 1`` with that seed gives that image again,
alone or among strangers, on any device to the device's rounding. Nothing here touches the
global generator.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["Rows", "derived", "fresh_seed", "generator", "rows"]

SEEDS = 2**63


def fresh_seed() -> int:
    """A seed from the system's entropy, below 2**63."""
    return secrets.randbelow(SEEDS)


def generator(seed: int | None = None) -> torch.Generator:
    """A CPU generator with that seed, or with fresh entropy for ``None``."""
    return torch.Generator().manual_seed(fresh_seed() if seed is None else seed % SEEDS)


class Rows:
    """One generator for each row of a batch.

    >>> a, b = Rows.from_seed(7, 3), Rows([9])
    >>> torch.equal(a.normal(2)[2:], b.normal(2))
    True
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self.seeds = [int(seed) % SEEDS for seed in seeds]
        self._generators = [generator(seed) for seed in self.seeds]

    @classmethod
    def from_seed(cls, seed: int, count: int) -> Rows:
        """``count`` rows, row i seeded ``(seed + i) mod 2**63``."""
        return cls((seed + i) % SEEDS for i in range(count))

    def __len__(self) -> int:
        return len(self._generators)

    def __getitem__(self, index: slice | Sequence[int]) -> Rows:
        """A view of some rows, which go on drawing from the same generators."""
        picked = range(len(self))[index] if isinstance(index, slice) else index
        view = Rows.__new__(Rows)
        view.seeds = [self.seeds[i] for i in picked]
        view._generators = [self._generators[i] for i in picked]
        return view

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, device="cpu") -> Tensor:
        """N(0, 1), shape (rows, *shape); drawn on the CPU, then moved."""
        return self._draw(torch.randn, shape, dtype, device)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32, device="cpu") -> Tensor:
        """U[0, 1), shape (rows, *shape); drawn on the CPU, then moved."""
        return self._draw(torch.rand, shape, dtype, device)

    def streams(self) -> Callable[[str], Rows]:
        """Rows for any number of names, of which none depends on which others there are.

        One number a row is drawn here, of which they are all made.
        """
        firsts = [_fresh_from(g) for g in self._generators]
        return lambda name: Rows(_hashed(first, name) for first in firsts)

    def _draw(self, sampler, shape, dtype, device) -> Tensor:
        if not self._generators:
            return torch.empty(0, *shape, dtype=dtype, device=device)
        drawn = [sampler(shape, generator=g, dtype=dtype) for g in self._generators]
        return torch.stack(drawn).to(device)


class _Shared(Rows):
    """The interface of ``Rows`` over one generator, for training and evaluation."""

    def __init__(self, shared: torch.Generator, count: int) -> None:
        self.seeds = []
        self._shared, self._count = shared, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: slice | Sequence[int]) -> Rows:
        count = len(range(self._count)[index]) if isinstance(index, slice) else len(index)
        return _Shared(self._shared, count)

    def streams(self) -> Callable[[str], Rows]:
        first = _fresh_from(self._shared)
        return lambda name: _Shared(derived(first, name), self._count)

    def _draw(self, sampler, shape, dtype, device) -> Tensor:
        where = self._shared.device
        drawn = sampler((self._count, *shape), generator=self._shared, dtype=dtype, device=where)
        return drawn.to(device)


def rows(source: Rows | torch.Generator | None, count: int) -> Rows:
    """``count`` rows of random numbers from whatever a caller passed.

    Args:
        source: ``Rows`` (one generator a row; there must be ``count``), one generator for all
            rows, or ``None`` for fresh entropy of the system.
    """
    if isinstance(source, Rows):
        if len(source) != count:
            raise ValueError(f"{len(source)} generators were passed for {count} rows")
        return source
    return _Shared(generator() if source is None else source, count)


def derived(seed: int, *parts: int | str) -> torch.Generator:
    """A generator for one purpose of a run: the same for the same seed and parts.

    Since it depends on nothing that went before, step 1000 of a resumed run draws what step 1000
    of an uninterrupted one would.
    """
    return generator(_hashed(seed, *parts))


def _hashed(*parts: int | str) -> int:
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SEEDS


def _fresh_from(source: torch.Generator) -> int:
    return int(torch.randint(SEEDS - 1, (), generator=source, device=source.device))
