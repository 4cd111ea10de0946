"""The loopback address of the front, for metrics and for who runs the server.

=================  ================================================================================
``GET /metrics``   the figures of workers and front, then TorchServe's own, for Prometheus
``GET /front``     the table: each model's version, workers, and requests in hand by version
``POST /refresh``  asks TorchServe after every model at once, then answers as ``/front`` does
=================  ================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from filelock import Timeout

from tzk_core.errors import TzkError
from tzk_core.front.answers import (
    Answer,
    NoSuchAddress,
    NotNow,
    json_answer,
    problem,
    send_answer,
)
from tzk_core.front.app import FrontApp
from tzk_core.front.watcher import Watcher

__all__ = ["AdminApp"]

SCRAPE_SECONDS = 5.0


class AdminApp:
    """The ASGI application of the address for metrics.

    Args:
        front: the public application.
        watcher: who asks TorchServe.
        session: to read TorchServe's metrics with.
        metrics_url: of TorchServe.
    """

    def __init__(
        self, front: FrontApp, watcher: Watcher, session: aiohttp.ClientSession, metrics_url: str
    ) -> None:
        self.front = front
        self.watcher = watcher
        self._session = session
        self._metrics_url = metrics_url

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        try:
            answer = await self._answer(scope["method"], scope["path"])
        except TzkError as error:
            answer = problem(error)
        await send_answer(send, answer, close=True)

    async def _answer(self, method: str, path: str) -> Answer:
        if (method, path) == ("GET", "/metrics"):
            return await self._metrics()
        if (method, path) == ("POST", "/refresh"):
            await self.watcher.refresh()
            return self._table()
        if (method, path) == ("GET", "/front"):
            return self._table()
        raise NoSuchAddress("here are GET /metrics, GET /front and POST /refresh")

    def _table(self) -> Answer:
        return json_answer(
            {
                "ready": not self.front.draining and not self.front.table.not_ready(),
                "draining": self.front.draining,
                "bytes_held": self.front.memory.held,
                "models": self.front.table.told(),
            }
        )

    async def _metrics(self) -> Answer:
        from tzk_core.service.metrics.files import CONTENT_TYPE, exposition

        try:
            ours = await asyncio.to_thread(exposition)
        except Timeout as error:
            raise NotNow("another process reads the figures, and is at it still") from error
        theirs = await self._theirs()
        return Answer(200, ours + theirs, ((b"content-type", CONTENT_TYPE.encode()),))

    async def _theirs(self) -> bytes:
        """TorchServe's own; a comment in their place while it does not answer."""
        timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
        try:
            async with self._session.get(f"{self._metrics_url}/metrics", timeout=timeout) as answer:
                return await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return f"# TorchServe gave no metrics: {type(error).__name__}\n".encode()
