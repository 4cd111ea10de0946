"""Reading a request's body within limits, and getting rid of one that is not wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tzk_core.front.answers import ClientGone, NotNow, TooLargeBody

__all__ = ["Memory", "has_body", "linger", "read_body"]

Receive = Callable[[], Awaitable[dict[str, Any]]]

LINGER_BYTES = 64 * 2**20
LINGER_SECONDS = 5.0


class Memory:
    """Bytes of all bodies and answers that are held at a time, within a limit.

    Args:
        limit: beyond it new bodies are refused.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> None:
        """Raises NotNow when there is no room for ``count`` bytes more."""
        if self.held + count > self.limit:
            raise NotNow(
                "the bodies of other requests fill the memory that is set apart for them; "
                "try again in 1 s"
            )
        self.held += count

    def hold(self, count: int) -> None:
        """Counts bytes that are there already."""
        self.held += count

    def free(self, count: int) -> None:
        self.held -= count


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int, memory: Memory
) -> bytes:
    """The body, counted as it comes; the caller frees ``len(body)`` of ``memory``.

    Raises:
        TooLargeBody: it is larger than ``limit``, as announced or as counted.
        NotNow: there is no memory for it.
        ClientGone: the client left.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limit:
        raise TooLargeBody(_too_large(limit))
    pieces: list[bytes] = []
    count = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            if count + len(piece) > limit:
                raise TooLargeBody(_too_large(limit))
            memory.take(len(piece))
            count += len(piece)
            pieces.append(piece)
            if not message.get("more_body", False):
                break
    except BaseException:
        memory.free(count)
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def linger(receive: Receive) -> None:
    """Throws away what is still sent, for a while: a close before that would reset the connection,
    and the client might never see the answer."""

    async def discard() -> None:
        seen = 0
        while seen < LINGER_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            seen += len(message.get("body", b""))

    try:
        await asyncio.wait_for(discard(), LINGER_SECONDS)
    except asyncio.TimeoutError:
        return


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit / 2**20:g} MiB, the limit of this server"
