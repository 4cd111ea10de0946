"""The client for code that waits for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
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

__all__ = ["TzkClient"]

Answer = TypeVar("Answer")


class TzkClient(AbstractContextManager):
    """Asks a server of tzk; threads may share one.

    Images are the bytes of a file, a path, a Pillow image, or a uint8 array (H, W) or (H, W, 3).
    Every option that an endpoint has is passed on by its name; the server checks it.

    Args:
        url: where the server is, without a path.
        timeout: seconds that one try may wait for the server to say something.
        key: sent as ``Authorization: Bearer``; by default the environment's TZK_API_KEY.
        retry: when to ask again, and the limit of all tries together.
        transport, sleep: for tests, what sends and what waits.

    Raises:
        Refused: (every method) the answer is an error; its subclasses say of which kind.
        Unreachable: (every method) no answer came that can be read.
        UsageError: an address, a key or an image that is none.

    >>> with TzkClient("http://127.0.0.1:8080") as client:  # doctest: +SKIP
    ...     client.nll("digit.png", given="mnist/3").bits_per_dim
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        timeout: float = 60.0,
        key: str | None = None,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._timeout = address(url), timeout
        self._retry, self._sleep = retry or Retry(), sleep
        self._http = httpx.Client(**settings(self._url, key, timeout), transport=transport)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def nll(self, image: Any, *, given: str | None = None, **options: Any) -> NllAnswer:
        """How likely is the image? Options: ``draws``, ``seed``."""
        return self.ask(building.nll(image, given, options))

    def nll_many(
        self,
        images: Iterable[Any],
        *,
        given: str | None = None,
        draws: int | None = None,
        seed: int | None = None,
        batch: int = BATCH,
    ) -> Iterator[NllAnswer | TzkError]:
        """An answer, or what was wrong with it, for each image in order; image i has seed + i.

        The images are sent ``batch`` at a time as the answers are taken. A request that is refused
        as a whole gives its error to each image in it; no connection and no right key are raised.
        """
        for part in nll_parts(images, given=given, draws=draws, seed=seed, batch=batch):
            call = part.call()
            try:
                filled = part.filled(self.ask(call) if call else [])
            except Refused as error:
                filled = part.refused(error)
            yield from filled

    def sample(self, path: building.Paths = None, **options: Any) -> SampleAnswer:
        """New images of a path, or of all of several, each with its seed and NLL.

        Options: ``absent``, ``n``, ``seed``, ``temperature``, ``code_temperature``,
        ``paper_sampler``.
        """
        return self.ask(building.sample(path, options))

    def samples(self, path: building.Paths = None, n: int = 1, **options: Any) -> np.ndarray:
        """New images as uint8 (n, C, H, W); options as ``sample`` has them."""
        return self.ask(building.samples(path, n, options))

    def sample_png(self, path: building.Paths = None, **options: Any) -> bytes:
        """New images as the bytes of one PNG, a grid if there are several."""
        return self.ask(building.sample_png(path, options))

    def sample_image(self, path: building.Paths = None, **options: Any) -> Image.Image:
        """New images as one picture, a grid if there are several."""
        return self.ask(building.sample_image(path, options))

    def posterior(self, image: Any, **options: Any) -> PosteriorAnswer:
        """Which knowledge applies?

        Options: ``knowledge``, ``draws``, ``decoder_draws``, ``seed``.
        """
        return self.ask(building.posterior(image, options))

    def interpolate(self, images: Sequence[Any], **options: Any) -> InterpolateAnswer:
        """Between 2 or 4 images. Options: ``steps``, ``method``, ``space``, ``given``, ``seed``."""
        return self.ask(building.interpolate(images, options))

    def interpolate_png(self, images: Sequence[Any], **options: Any) -> bytes:
        """Between 2 or 4 images, as the bytes of one PNG."""
        return self.ask(building.interpolate_png(images, options))

    def interpolate_image(self, images: Sequence[Any], **options: Any) -> Image.Image:
        """Between 2 or 4 images, as one picture."""
        return self.ask(building.interpolate_image(images, options))

    def ask(self, call: Call[Answer]) -> Answer:
        """The answer to a call."""
        return read(call, self.response(call), self._url)

    def response(self, call: Call) -> httpx.Response:
        """The response to a call with its headers, not yet read."""
        tries, request = Tries(self._retry, self._timeout), call.request()
        while True:
            outcome: Outcome
            try:
                outcome = self._http.request(**request, timeout=tries.begin())
            except httpx.RequestError as error:
                outcome = error
            wait = tries.wait(outcome)
            if wait is None:
                return response_of(outcome, self._url, tries.made)
            self._sleep(wait)
