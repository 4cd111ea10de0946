"""Errors of the front, and how an answer is sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tzk_core.errors import ModelUnavailable, TooLarge, TzkError
from tzk_core.service.wire import JSON, PROBLEM

__all__ = [
    "Answer",
    "BadAddress",
    "BadBody",
    "BadGateway",
    "ClientGone",
    "NoSuchAddress",
    "NotAllowed",
    "NotNow",
    "QueryRefused",
    "TooLargeBody",
    "Unauthorized",
    "json_answer",
    "problem",
    "raw_problem",
    "send_answer",
]

Send = Callable[[dict[str, Any]], Awaitable[None]]

PIECE = 256 * 1024
"""Bytes that a reader must take within the protocol's time for slow readers."""


class BadBody(TzkError):
    status = 400
    title = "Bad body"


class BadAddress(TzkError):
    status = 400
    title = "Bad address"


class Unauthorized(TzkError):
    status = 401
    title = "A key is needed"


class NoSuchAddress(TzkError):
    status = 404
    title = "Nothing there"


class NotAllowed(TzkError):
    status = 405
    title = "Method not allowed"


class QueryRefused(TzkError):
    status = 422
    title = "Invalid request"


class TooLargeBody(TooLarge):
    pass


class BadGateway(TzkError):
    """TorchServe's answer was lost or cannot be understood."""

    status = 502
    title = "The answer was lost"


class NotNow(ModelUnavailable):
    """503, with ``retry_after`` seconds."""

    def __init__(self, detail: str, *, retry_after: int = 1, **extensions: Any) -> None:
        super().__init__(detail, **extensions)
        self.retry_after = retry_after


class ClientGone(Exception):
    """The client left, or was too slow, before its request was whole."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case; content-length is added) and body."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


def json_answer(value: Any, status: int = 200, content_type: str = JSON) -> Answer:
    return Answer(status, json.dumps(value).encode(), ((b"content-type", content_type.encode()),))


def problem(error: TzkError) -> Answer:
    """The answer that tells of ``error`` (RFC 9457), with the headers that its status asks for."""
    headers = [(b"content-type", PROBLEM.encode())]
    if isinstance(error, NotNow):
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="tzk"'))
    if isinstance(error, NotAllowed):
        headers.append((b"allow", b"GET, POST, PUT"))
    return Answer(error.status, json.dumps(error.problem()).encode(), tuple(headers))


def raw_problem(status: int, detail: str) -> bytes:
    """A whole HTTP answer, for a connection that has no request yet; it is closed after it."""
    phrase = HTTPStatus(status).phrase
    body = json.dumps(
        {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
    ).encode()
    retry = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
        f"{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body


async def send_answer(send: Send, answer: Answer, *, close: bool, last: bool = True) -> None:
    """Sends it in pieces, so that a reader's slowness is seen.

    Args:
        send: ASGI's.
        answer: what to send.
        close: the connection ends after it.
        last: False leaves the response open, though all of it was sent (see ``bodies.linger``).
    """
    headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = answer.body
    if len(body) <= PIECE:
        await send({"type": "http.response.body", "body": body, "more_body": not last})
        return
    for start in range(0, len(body), PIECE):
        more = start + PIECE < len(body) or not last
        piece = body[start : start + PIECE]
        await send({"type": "http.response.body", "body": piece, "more_body": more})
