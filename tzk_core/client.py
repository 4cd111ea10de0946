"""A client of the four endpoints: typed answers, and the server's problem as an exception."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx
from pydantic import TypeAdapter

from tzk_core.errors import TzkError
from tzk_core.service.answers import (
    InterpolateAnswer,
    NllAnswer,
    PosteriorAnswer,
    SampleAnswer,
)

__all__ = ["Refused", "TzkClient"]

VERSION = "1.0"

_POSTERIOR = TypeAdapter(PosteriorAnswer)


class Refused(TzkError):
    """The server's answer was an error; ``status`` and ``detail`` are its own."""

    title = "Refused"

    def __init__(self, status: int, detail: str, *, pointer: str | None = None) -> None:
        super().__init__(detail, pointer=pointer)
        self.status = status


class TzkClient(AbstractContextManager):
    """Asks a server of tzk.

    Args:
        url: where it is, without a path.
        timeout: seconds that one request may take.

    >>> with TzkClient("http://127.0.0.1:8080") as client:  # doctest: +SKIP
    ...     client.nll(open("digit.png", "rb").read()).bits_per_dim
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, timeout: float = 60.0) -> None:
        # trust_env: a proxy of the environment has no business between here and loopback.
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def nll(self, image: bytes, *, given: str | None = None, **options: Any) -> NllAnswer:
        """How likely is the image in a file's bytes? Options: ``seed``, ``draws``."""
        answer = self.ask("tzk_nll", given, {"image": image}, options)
        return NllAnswer.model_validate_json(answer.content)

    def sample(self, path: str | None = None, **options: Any) -> SampleAnswer:
        """New images, of one path or of ``a,b``. Options: ``absent``, ``n``, ``seed``, …"""
        answer = self.ask("tzk_sample", path, {}, options | {"format": "json"})
        return SampleAnswer.model_validate_json(answer.content)

    def sample_png(self, path: str | None = None, **options: Any) -> bytes:
        """New images as one PNG, a grid if there are several."""
        return self.ask("tzk_sample", path, {}, options | {"format": "png"}).content

    def posterior(self, image: bytes, **options: Any) -> PosteriorAnswer:
        """Which knowledge applies? Options: ``seed``, ``draws``, ``decoder_draws``."""
        answer = self.ask("tzk_posterior", None, {"image": image}, options)
        return _POSTERIOR.validate_json(answer.content)

    def interpolate(self, images: Sequence[bytes], **options: Any) -> InterpolateAnswer:
        """Between 2 or 4 images. Options: ``steps``, ``method``, ``space``, ``given``, …"""
        answer = self.ask("tzk_interpolate", None, _corners(images), options | {"format": "json"})
        return InterpolateAnswer.model_validate_json(answer.content)

    def interpolate_png(self, images: Sequence[bytes], **options: Any) -> bytes:
        """Between 2 or 4 images, as one PNG."""
        return self.ask(
            "tzk_interpolate", None, _corners(images), options | {"format": "png"}
        ).content

    def ask(
        self, endpoint: str, path: str | None, images: dict[str, bytes], options: dict[str, Any]
    ) -> httpx.Response:
        """One request of multipart fields, as ``curl -F`` sends it.

        Raises:
            Refused: the answer is an error.
        """
        url = f"/predictions/{endpoint}/{VERSION}" + (f"/{path}" if path else "")
        fields = [(name, (name, data)) for name, data in images.items()]
        fields += [(k, (None, _text(v).encode())) for k, v in options.items() if v is not None]
        answer = self._http.post(url, files=fields) if fields else self._http.get(url)
        return checked(answer)


def checked(answer: httpx.Response) -> httpx.Response:
    """``answer``, unless it is an error."""
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        detail = problem.get("detail") or problem.get("message") or answer.reason_phrase
        pointer = problem.get("pointer")
    except (ValueError, AttributeError):
        detail, pointer = answer.reason_phrase, None
    raise Refused(answer.status_code, str(detail), pointer=pointer)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _corners(images: Sequence[bytes]) -> dict[str, bytes]:
    return {f"image{i}": data for i, data in enumerate(images, start=1)}
