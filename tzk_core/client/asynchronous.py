"""The client for code under asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import httpx
import numpy as np
from PIL import Image

from tzk_core.client import building
from tzk_core.client.batches import BATCH, nll_parts
from tzk_core.client.building import Call
from tzk_core.client.connection import address, read, response_of, settings
from tzk_core.client.errors import Refused
from tzk_core.client.retrying import Outcome, Retry, Tries
from tzk_core.errors import TzkError
from tzk_core.service.answers import (
    InterpolateAnswer,
    NllAnswer,
    PosteriorAnswer,
    SampleAnswer,
)

__all__ = ["AsyncTzkClient"]

Answer = TypeVar("Answer")


class AsyncTzkClient(AbstractAsyncContextManager):
    """``TzkClient`` with methods that are awaited; arguments, options and errors are its own.

    >>> async with AsyncTzkClient("http://127.0.0.1:8080") as client:  # doctest: +SKIP
    ...     (await client.nll("digit.png")).bits_per_dim
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        timeout: float = 60.0,
        key: str | None = None,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url, self._timeout = address(url), timeout
        self._retry, self._sleep = retry or Retry(), sleep
        self._http = httpx.AsyncClient(**settings(self._url, key, timeout), transport=transport)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def nll(self, image: Any, *, given: str | None = None, **options: Any) -> NllAnswer:
        """How likely is the image? Options: ``draws``, ``seed``."""
        return await self.ask(building.nll(image, given, options))

    async def nll_many(
        self,
        images: Iterable[Any],
        *,
        given: str | None = None,
        draws: int | None = None,
        seed: int | None = None,
        batch: int = BATCH,
    ) -> AsyncIterator[NllAnswer | TzkError]:
        """An answer, or what was wrong with it, for each image in order; see ``TzkClient``."""
        for part in nll_parts(images, given=given, draws=draws, seed=seed, batch=batch):
            call = part.call()
            try:
                filled = part.filled(await self.ask(call) if call else [])
            except Refused as error:
                filled = part.refused(error)
            for one in filled:
                yield one

    async def sample(self, path: building.Paths = None, **options: Any) -> SampleAnswer:
        """New images of a path, or of all of several, each with its seed and NLL."""
        return await self.ask(building.sample(path, options))

    async def samples(self, path: building.Paths = None, n: int = 1, **options: Any) -> np.ndarray:
        """New images as uint8 (n, C, H, W)."""
        return await self.ask(building.samples(path, n, options))

    async def sample_png(self, path: building.Paths = None, **options: Any) -> bytes:
        """New images as the bytes of one PNG, a grid if there are several."""
        return await self.ask(building.sample_png(path, options))

    async def sample_image(self, path: building.Paths = None, **options: Any) -> Image.Image:
        """New images as one picture, a grid if there are several."""
        return await self.ask(building.sample_image(path, options))

    async def posterior(self, image: Any, **options: Any) -> PosteriorAnswer:
        """Which knowledge applies?"""
        return await self.ask(building.posterior(image, options))

    async def interpolate(self, images: Sequence[Any], **options: Any) -> InterpolateAnswer:
        """Between 2 or 4 images."""
        return await self.ask(building.interpolate(images, options))

    async def interpolate_png(self, images: Sequence[Any], **options: Any) -> bytes:
        """Between 2 or 4 images, as the bytes of one PNG."""
        return await self.ask(building.interpolate_png(images, options))

    async def interpolate_image(self, images: Sequence[Any], **options: Any) -> Image.Image:
        """Between 2 or 4 images, as one picture."""
        return await self.ask(building.interpolate_image(images, options))

    async def ask(self, call: Call[Answer]) -> Answer:
        """The answer to a call."""
        return read(call, await self.response(call), self._url)

    async def response(self, call: Call) -> httpx.Response:
        """The response to a call with its headers, not yet read."""
        tries, request = Tries(self._retry, self._timeout), call.request()
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.request(**request, timeout=tries.begin())
            except httpx.RequestError as error:
                outcome = error
            wait = tries.wait(outcome)
            if wait is None:
                return response_of(outcome, self._url, tries.made)
            await self._sleep(wait)
