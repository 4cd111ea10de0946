"""One connection, with limits that uvicorn's parser does not have.

uvicorn's protocol on httptools reads a head of any length for any time and waits for ever for a
reader. Here each of the four phases of a request has its time and its size:

=====================  ==================================================
the head arrives       ``HEAD_SECONDS``, ``HEAD_BYTES``, ``MOST_HEADERS``
the body arrives       ``BODY_SECONDS`` and ``LEAST_RATE``
the answer is read     ``READ_SECONDS`` for each 256 KiB
nothing happens        ``IDLE_SECONDS``
=====================  ==================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tzk_core.front.answers import raw_problem

__all__ = ["GuardedProtocol", "is_idle"]

HEAD_SECONDS = 10.0
HEAD_BYTES = 32 * 1024
MOST_HEADERS = 100
BODY_SECONDS = 20.0
LEAST_RATE = 16 * 1024
"""Bytes a second; a body may take ``BODY_SECONDS`` and the time that this rate needs."""
READ_SECONDS = 30.0
FLUSH_SECONDS = 10.0
IDLE_SECONDS = 75
"""Longer than load balancers keep theirs (60 s), so that they close first and lose no request."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's, with the limits above; what breaks one is told and closed.

    Args:
        most_connections: at which an idle one is closed for a new one, or the new one is refused.
        others: the arguments of uvicorn's protocol.
    """

    def __init__(self, *others: Any, most_connections: int, **named: Any) -> None:
        super().__init__(*others, **named)
        self.most_connections = most_connections
        self.in_head = True
        self._refusal: tuple[int, str] | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_began = 0.0
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most_connections and not self._room_made():
            self._refuse(503, "there are too many connections; try again in 1 s")
            return
        self._within(HEAD_SECONDS, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_sending_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self.in_head:
            if self._sending is None:
                self._within(HEAD_SECONDS, self._head_late)
            self._head_bytes += len(data)
        super().data_received(data)
        if self.in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"the head of the request is longer than {HEAD_BYTES} bytes")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        status, detail = self._refusal or (400, "this is no HTTP request that can be understood")
        self._refusal = None
        self._refuse(status, detail)

    # The parser

    def on_headers_complete(self) -> None:
        lengths = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
        if lengths > HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            self._refusal = (
                431,
                f"the head of a request has at most {HEAD_BYTES} bytes and {MOST_HEADERS} headers",
            )
            raise ValueError("head too large")  # httptools stops, uvicorn answers as told above
        self.in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_began = time.monotonic()
        self._within(BODY_SECONDS, self._body_late)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_sending_timer()
        self.in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            # What is written goes out first; a reader that does not read does not keep it open.
            self.loop.call_later(FLUSH_SECONDS, self.transport.abort)
        super().on_response_complete()

    # The reader

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_reading_timer()
        self._reading = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_reading_timer()
        super().resume_writing()

    # Limits

    def _head_late(self) -> None:
        self._sending = None
        if self._head_bytes:
            self._refuse(408, f"the head of the request took longer than {HEAD_SECONDS:g} s")
        else:
            self.transport.close()

    def _body_late(self) -> None:
        self._sending = None
        allowed = BODY_SECONDS + self._body_bytes / LEAST_RATE
        left = self._body_began + allowed - time.monotonic()
        if left > 0:
            self._within(left, self._body_late)
            return
        self.scope["state"]["late"] = True
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(408, f"the body came at less than {LEAST_RATE} bytes a second")

    def _refuse(self, status: int, detail: str) -> None:
        self._refusal = (status, detail)
        self._stop_sending_timer()
        if not self.transport.is_closing():
            busy = self.cycle is not None and not self.cycle.response_complete
            if not busy or not (self.in_head or self.cycle.response_started):
                self.transport.write(raw_problem(status, detail))
            self.transport.close()
            self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def _room_made(self) -> bool:
        for other in self.connections:
            if other is not self and is_idle(other):
                other.transport.close()
                return True
        return False

    def _within(self, seconds: float, late: Callable[[], None]) -> None:
        self._stop_sending_timer()
        self._sending = self.loop.call_later(seconds, late)

    def _stop_sending_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def is_idle(connection: HttpToolsProtocol) -> bool:
    """Whether it has had an answer and has not begun another request."""
    cycle = connection.cycle
    return (
        cycle is not None
        and cycle.response_complete
        and connection.in_head
        and not connection._head_bytes
        and not connection.transport.is_closing()
    )
