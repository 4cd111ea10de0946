"""What is sent and how its answer is read: no input or output, so that both clients share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import httpx
import numpy as np
from PIL import Image
from pydantic import BaseModel, TypeAdapter

from tzk_core.client.images import array_of, image_bytes, opened
from tzk_core.service.answers import (
    InterpolateAnswer,
    NllAnswer,
    PosteriorAnswer,
    SampleAnswer,
)

__all__ = [
    "Call",
    "Told",
    "interpolate",
    "interpolate_image",
    "interpolate_png",
    "nll",
    "posterior",
    "sample",
    "sample_image",
    "sample_png",
    "samples",
]

VERSION = "1.0"

Answer = TypeVar("Answer")
Paths = str | Sequence[str] | None

_POSTERIOR = TypeAdapter(PosteriorAnswer)


@dataclass(frozen=True)
class Told:
    """What an answer's body has no place for.

    Args:
        seed: from which every random number came; none where the server says none.
        notes: how images were prepared, warnings.
    """

    seed: int | None
    notes: list[str]

    @classmethod
    def of(cls, response: httpx.Response) -> Told:
        seed = response.headers.get("X-Tzk-Seed", "")
        notes = response.headers.get("X-Tzk-Notes")
        return cls(int(seed) if seed.isdecimal() else None, [notes] if notes else [])


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, and how its answer is read.

    Args:
        endpoint: its name.
        read: makes the answer of a response that is no error; a ``ValueError`` says that it
            cannot be read.
        images: multipart fields that are files.
        options: multipart fields that are text; ``None`` is left out.
        body: sent as JSON in place of fields.
    """

    endpoint: str
    read: Callable[[httpx.Response], Answer]
    images: Mapping[str, bytes] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None

    def with_headers(self) -> Call[tuple[Answer, Told]]:
        """The same request, read to its answer and what the headers tell beside it."""
        return replace(self, read=lambda response: (self.read(response), Told.of(response)))

    @property
    def url(self) -> str:
        return f"/predictions/{self.endpoint}/{VERSION}"

    def request(self) -> dict[str, Any]:
        """How httpx is to send it: ``method``, ``url``, and ``files`` or ``json``."""
        if self.body is not None:
            return {"method": "POST", "url": self.url, "json": self.body}
        fields: list[tuple[str, tuple[str | None, bytes]]] = [
            (name, (name, data)) for name, data in self.images.items()
        ]
        fields += [
            (name, (None, _text(value).encode()))
            for name, value in self.options.items()
            if value is not None
        ]
        if not fields:
            return {"method": "GET", "url": self.url}
        return {"method": "POST", "url": self.url, "files": fields}


def nll(image: Any, given: str | None, options: Mapping[str, Any]) -> Call[NllAnswer]:
    sent = {"image": image_bytes(image)}
    return Call("tzk_nll", _as(NllAnswer), sent, {"given": given, **options})


def posterior(image: Any, options: Mapping[str, Any]) -> Call[PosteriorAnswer]:
    sent = {"image": image_bytes(image)}
    return Call("tzk_posterior", _read_posterior, sent, options)


def sample(path: Paths, options: Mapping[str, Any]) -> Call[SampleAnswer]:
    return _sample(path, options, "json", _as(SampleAnswer))


def sample_png(path: Paths, options: Mapping[str, Any]) -> Call[bytes]:
    return _sample(path, options, "png", _content)


def sample_image(path: Paths, options: Mapping[str, Any]) -> Call[Image.Image]:
    return _sample(path, options, "png", _picture)


def samples(path: Paths, n: int, options: Mapping[str, Any]) -> Call[np.ndarray]:
    return _sample(path, {"n": n, **options}, "npy", _array)


def interpolate(images: Sequence[Any], options: Mapping[str, Any]) -> Call[InterpolateAnswer]:
    return _interpolate(images, options, "json", _as(InterpolateAnswer))


def interpolate_png(images: Sequence[Any], options: Mapping[str, Any]) -> Call[bytes]:
    return _interpolate(images, options, "png", _content)


def interpolate_image(images: Sequence[Any], options: Mapping[str, Any]) -> Call[Image.Image]:
    return _interpolate(images, options, "png", _picture)


def _sample(
    path: Paths, options: Mapping[str, Any], form: str, read: Callable[[httpx.Response], Answer]
) -> Call[Answer]:
    return Call("tzk_sample", read, {}, {"given": path, **options, "format": form})


def _interpolate(
    images: Sequence[Any],
    options: Mapping[str, Any],
    form: str,
    read: Callable[[httpx.Response], Answer],
) -> Call[Answer]:
    sent = {f"image{i}": image_bytes(data) for i, data in enumerate(images, start=1)}
    return Call("tzk_interpolate", read, sent, {**options, "format": form})


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _as(model: type[BaseModel]) -> Callable[[httpx.Response], Any]:
    # A newer server may tell more than this client knows of.
    return lambda answer: model.model_validate_json(answer.content, extra="ignore")


def _read_posterior(answer: httpx.Response) -> PosteriorAnswer:
    return _POSTERIOR.validate_json(answer.content, extra="ignore")


def _content(answer: httpx.Response) -> bytes:
    return answer.content


def _picture(answer: httpx.Response) -> Image.Image:
    return opened(answer.content)


def _array(answer: httpx.Response) -> np.ndarray:
    return array_of(answer.content)
