"""What is served now: each model's current version, its workers, and its requests in hand."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tzk_core.front.answers import NoSuchAddress, NotNow

__all__ = ["Model", "Table"]

LOST_SECONDS = 1.5
"""After which requests give up a model whose last worker died."""


class Model:
    """One endpoint.

    Args:
        name: its name, here and in TorchServe.
        limit: requests that TorchServe may have of it at a time.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.version: str | None = None
        self.batch_seconds = math.inf
        self.pids: frozenset[int] = frozenset()
        self.reason: str | None = "it is being loaded"
        self.since = time.monotonic()
        self.in_hand: Counter[str] = Counter()
        self._lost: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def live(self) -> bool:
        return self.reason is None

    def describe(self, version: str, pids: Iterable[int], batch_seconds: float) -> None:
        """It has workers: ``pids`` are ready to answer for ``version``.

        A batch that takes ``batch_seconds`` costs its worker: TorchServe kills it.
        """
        if not self.live:
            self.since = time.monotonic()
        self.batch_seconds = batch_seconds
        self.version, self.pids, self.reason = version, frozenset(pids), None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail(self, reason: str) -> None:
        """It has no live worker; requests in hand are told so soon."""
        if self.live:
            self.since = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(LOST_SECONDS, self._give_up)
        self.pids, self.reason = frozenset(), reason

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when a request that waits now should wait no longer."""
        if self._lost is None or self._lost.done():
            self._lost = asyncio.get_running_loop().create_future()
        return self._lost

    @contextmanager
    def slot(self) -> Iterator[str]:
        """One of the requests in hand, as long as it lasts; gives the version to ask.

        Raises:
            NotNow: it has no live worker, or as many requests as it may.
        """
        self.check()
        version = self.version
        self.in_hand[version] += 1
        try:
            yield version
        finally:
            self.in_hand[version] -= 1
            if not self.in_hand[version]:
                del self.in_hand[version]

    def check(self) -> None:
        """Raises NotNow unless a request would be taken."""
        if not self.live:
            raise NotNow(f"{self.name} has no live worker: {self.reason}", retry_after=2)
        count = sum(self.in_hand.values())
        if count >= self.limit:
            raise NotNow(
                f"{self.name} has {count} requests in hand, as many as it may; try again in 1 s"
            )

    def told(self) -> dict[str, Any]:
        return {
            "ready": self.live,
            "version": self.version,
            "in_hand": dict(self.in_hand),
            "limit": self.limit,
            "workers": sorted(self.pids),
            "reason": self.reason,
            "seconds": round(time.monotonic() - self.since, 1),
        }

    def _give_up(self) -> None:
        self._timer = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)


class Table:
    """All models by name."""

    def __init__(self, names: Iterable[str], limit: int) -> None:
        self.models = {name: Model(name, limit) for name in names}

    def __getitem__(self, name: str) -> Model:
        """Raises NoSuchAddress for a name that no model has."""
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(self.models)
            raise NoSuchAddress(
                f"there is no endpoint {name[:60]!r}; there is {known}", known=list(self.models)
            ) from None

    def not_ready(self) -> dict[str, str]:
        """The reason for each model that has no live worker."""
        return {m.name: m.reason for m in self.models.values() if m.reason is not None}

    def told(self) -> dict[str, Any]:
        return {name: model.told() for name, model in self.models.items()}
