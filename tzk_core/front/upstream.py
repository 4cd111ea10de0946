"""One request to TorchServe, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import aiohttp
from yarl import URL

from tzk_core.errors import OutOfTime
from tzk_core.front.answers import Answer, BadGateway, NotNow, problem
from tzk_core.front.table import Model
from tzk_core.front.translation import VersionGone, as_problem
from tzk_core.front.urls import Target
from tzk_core.front.watcher import Watcher
from tzk_core.service.wire import PROBLEM

__all__ = ["Upstream"]

PASSED_ON = (b"accept", b"content-type")
"""Of the caller's headers. A key stays here, and none can pass for one that TorchServe makes."""
NOT_PASSED_BACK = frozenset(
    b"connection keep-alive transfer-encoding content-length x-request-id".split()
    + b"pragma expires cache-control date server".split()
)
CONNECT_SECONDS = 5.0
LOST_CONNECTION = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""Closed, or reset, before there was an answer."""


class Upstream:
    """Asks TorchServe.

    Args:
        session: to ask with.
        url: of TorchServe's inference address.
        watcher: who knows of new versions.
        seconds: after which an answer comes too late.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, watcher: Watcher, seconds: float
    ) -> None:
        self._session = session
        self._url = url
        self._watcher = watcher
        self._seconds = seconds
        self._timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)

    async def ask(
        self,
        model: Model,
        method: str,
        target: Target,
        headers: Mapping[bytes, bytes],
        body: bytes | None,
        request_id: str,
    ) -> tuple[Answer, str]:
        """The answer and the version that gave it.

        A version that has just been taken out is asked again as the one that replaced it, and a
        connection that TorchServe closed under the request is replaced: answers depend on nothing
        but the request, so that asking twice changes nothing.

        Raises:
            NotNow: it is full, or its last worker died.
            OutOfTime: no answer in time.
            BadGateway: TorchServe broke off.
        """
        passed = {
            name.decode(): value.decode("latin-1")
            for name, value in headers.items()
            if name in PASSED_ON
        }
        passed["X-Request-Id"] = request_id
        passed["X-Request-Start"] = f"t={time.time():.6f}"
        again = True
        while True:
            with model.slot() as version:
                url = URL(
                    f"{self._url}/predictions/{target.endpoint}/{version}{target.rest}",
                    encoded=True,
                )
                try:
                    return await self._until_lost(model, method, url, passed, body), version
                except VersionGone:
                    pass
                except LOST_CONNECTION as error:
                    if not again:
                        raise BadGateway("TorchServe broke off the answer; try again") from error
            if not again:
                raise NotNow(f"{model.name} is being replaced; try again in 1 s")
            again = False
            await self._watcher.ask(model)

    async def _until_lost(
        self, model: Model, method: str, url: URL, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        lost = model.lost
        asking = asyncio.ensure_future(self._once(model, method, url, headers, body))
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
        raise NotNow(
            f"{model.name} has no live worker any more: {model.reason}; try again in 2 s",
            retry_after=2,
        )

    async def _once(
        self, model: Model, method: str, url: URL, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        began = time.monotonic()
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                read = await answer.read()
        except asyncio.TimeoutError as error:
            raise OutOfTime(
                f"there was no answer within {self._seconds:g} s; ask for less"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise NotNow("TorchServe does not listen; try again in 2 s", retry_after=2) from error
        except LOST_CONNECTION:
            raise
        except aiohttp.ClientError as error:
            raise BadGateway("TorchServe broke off the answer; try again") from error
        back = tuple(
            (name.lower(), value)
            for name, value in answer.raw_headers
            if name.lower() not in NOT_PASSED_BACK
        )
        if answer.status >= 400 and answer.content_type != PROBLEM:
            out_of_time = time.monotonic() - began >= model.batch_seconds
            return problem(as_problem(answer.status, read, out_of_time=out_of_time))
        if answer.status == 503 and not any(name == b"retry-after" for name, _ in back):
            back += ((b"retry-after", b"1"),)
        return Answer(answer.status, read, back)
