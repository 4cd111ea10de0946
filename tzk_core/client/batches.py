"""Many images in few requests: JSON lists, each of a set size."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from tzk_core.client.building import Call
from tzk_core.client.errors import Refused, Unauthorized, refusal
from tzk_core.client.images import image_bytes
from tzk_core.errors import TzkError, UsageError
from tzk_core.service.answers import NllAnswer

__all__ = ["BATCH", "MOST_BYTES", "Part", "nll_parts"]

BATCH = 16
"""Images of one request: as many as the server's model takes at a time."""

MOST_BYTES = 8 * 2**20
"""Of the base64 in one request, half of the 16 MiB that the server takes when not told otherwise.
An image that is larger by itself is sent alone."""

SEEDS = 2**63
"""There are so many seeds (design, section 6: image i of a call has seed + i mod 2⁶³)."""

Scored = NllAnswer | TzkError


@dataclass(frozen=True)
class Part:
    """Some images in their order.

    Args:
        items: what is sent for each image, or why it could not be.
    """

    items: Sequence[dict[str, Any] | TzkError]

    def call(self) -> Call[list[Scored]] | None:
        """The request; None if there is nothing to ask."""
        sent = [item for item in self.items if not isinstance(item, TzkError)]
        return Call("tzk_nll", partial(_read, len(sent)), body=sent) if sent else None

    def filled(self, answers: Iterable[Scored]) -> list[Scored]:
        """An answer or error for each image; ``answers`` are those of what was sent, in order."""
        left = iter(answers)
        return [item if isinstance(item, TzkError) else next(left) for item in self.items]

    def refused(self, error: Refused) -> list[Scored]:
        """The same error for each image that was sent.

        Raises:
            Unauthorized: it would be the same for every part.
        """
        if isinstance(error, Unauthorized):
            raise error
        return [item if isinstance(item, TzkError) else error for item in self.items]


def nll_parts(
    images: Iterable[Any],
    *,
    given: str | None,
    draws: int | None,
    seed: int | None,
    batch: int,
) -> Iterator[Part]:
    """``images`` in parts of at most ``batch`` and about ``MOST_BYTES``, each read when due.

    Raises:
        UsageError: ``batch`` is less than 1.
    """
    if batch < 1:
        raise UsageError(f"batch is at least 1, not {batch}")
    options = {"given": given, "draws": draws}
    shared = {name: value for name, value in options.items() if value is not None}
    items: list[dict[str, Any] | TzkError] = []
    size = 0
    for i, image in enumerate(images):
        own = {} if seed is None else {"seed": (seed + i) % SEEDS}
        item = _item(image, shared | own)
        length = 0 if isinstance(item, TzkError) else len(item["image"])
        if items and (len(items) == batch or size + length > MOST_BYTES):
            yield Part(items)
            items, size = [], 0
        items.append(item)
        size += length
    if items:
        yield Part(items)


def _item(image: Any, options: dict[str, Any]) -> dict[str, Any] | TzkError:
    try:
        return {"image": base64.b64encode(image_bytes(image)).decode(), **options}
    except TzkError as error:
        return error


def _read(count: int, answer: httpx.Response) -> list[Scored]:
    told = answer.json()
    if not isinstance(told, list) or len(told) != count:
        raise ValueError(f"the answer to {count} requests is no list of {count}")
    return [
        NllAnswer.model_validate(one, extra="ignore")
        if isinstance(one, dict) and "nll_nats" in one
        else refusal(one, answer)
        for one in told
    ]
