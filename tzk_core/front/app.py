"""What an address does, and how a request passes from its caller to TorchServe and back.

=====================================  ========================================================
``GET|POST|PUT /predictions/NAME…``    passed on, when the caller may and there is room
``GET /ready``                         200 when every model has a live worker, else 503 and why
``GET /ping``                          200: this process lives
=====================================  ========================================================
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.front.access_log import AccessLog
from tzk_core.front.answers import (
    Answer,
    ClientGone,
    NotAllowed,
    NotNow,
    QueryRefused,
    Unauthorized,
    json_answer,
    problem,
    send_answer,
)
from tzk_core.front.bodies import Memory, has_body, linger, read_body
from tzk_core.front.keys import Keys, sent_key
from tzk_core.front.table import Table
from tzk_core.front.upstream import Upstream
from tzk_core.front.urls import parse_target

__all__ = ["FrontApp"]

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
METHODS = ("GET", "POST", "PUT")
SMALL = 64 * 1024
LATE, GONE = 408, 499
"""What the log says of a request that was never whole: too slow, or its caller left."""


@dataclass
class Call:
    """One request on its way, as the log will tell of it."""

    scope: dict[str, Any]
    headers: dict[bytes, bytes]
    request_id: str
    endpoint: str = "other"
    key: str | None = None
    version: str | None = None
    bytes_in: int = 0
    whole: bool = False
    detail: str | None = None


class FrontApp:
    """The ASGI application of the public address.

    Args:
        table: what is served.
        upstream: where requests go.
        keys: who may call.
        memory: for bodies and answers.
        body_limit: bytes of one body.
        access_log: where each request is told of.
        timed: ``metrics.front_request``, or one that counts nothing.
    """

    def __init__(
        self,
        table: Table,
        upstream: Upstream,
        keys: Keys,
        memory: Memory,
        body_limit: int,
        access_log: AccessLog,
        timed: Callable[[str], contextlib.AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.table = table
        self.upstream = upstream
        self.keys = keys
        self.memory = memory
        self.body_limit = body_limit
        self.access_log = access_log
        self.timed = timed or _not_timed
        self.draining = False

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        call = Call(scope, headers, _request_id(headers), whole=not has_body(headers))
        call.endpoint = _endpoint(scope["raw_path"], self.table)
        status, bytes_out = GONE, 0
        try:
            with self.timed(call.endpoint) as counted:
                try:
                    answer = await self._answer(call, receive)
                except ClientGone:
                    status = LATE if scope["state"].get("late") else GONE
                    counted.status = status
                    return
                status, bytes_out = answer.status, len(answer.body)
                counted.status = status
                await self._send(call, answer, receive, send)
        finally:
            client = scope.get("client")
            self.access_log.write(
                id=call.request_id,
                client=client[0] if client else None,
                key=call.key,
                method=scope["method"],
                path=scope["raw_path"].decode("latin-1"),
                version=call.version,
                status=status,
                ms=round((time.perf_counter() - began) * 1e3, 2),
                bytes_in=call.bytes_in,
                bytes_out=bytes_out,
                detail=call.detail,
            )

    async def _answer(self, call: Call, receive: Callable[[], Awaitable[dict[str, Any]]]) -> Answer:
        try:
            open_answer = self._open(call)
            if open_answer is not None:
                return open_answer
            return await self._predict(call, receive)
        except TzkError as error:
            call.detail = error.detail[:200]
            return problem(error)
        except ClientGone:
            raise
        except Exception as error:
            log.error("request %s failed in the front", call.request_id, exc_info=error)
            call.detail = f"{type(error).__name__}"
            return problem(TzkError("the front failed; its log says why, under this request's id"))

    def _open(self, call: Call) -> Answer | None:
        """The answers that need no key."""
        path, method = call.scope["raw_path"], call.scope["method"]
        if path == b"/ping" and method in ("GET", "HEAD"):
            return json_answer({"status": "Healthy"})
        if path == b"/ready" and method in ("GET", "HEAD"):
            return self.readiness()
        return None

    def readiness(self) -> Answer:
        """200 when every model can answer, else a problem with the reason for each that cannot."""
        reasons = self.table.not_ready()
        states = {name: reasons.get(name, "ready") for name in self.table.models}
        if self.draining:
            return problem(NotNow("the server is being stopped", retry_after=5, models=states))
        if reasons:
            told = ", ".join(reasons)
            return problem(NotNow(f"not ready: {told}", retry_after=2, models=states))
        return json_answer({"ready": True, "models": states})

    async def _predict(
        self, call: Call, receive: Callable[[], Awaitable[dict[str, Any]]]
    ) -> Answer:
        scope = call.scope
        if self.keys:
            call.key = self.keys.name_of(sent_key(call.headers))
            if call.key is None:
                raise Unauthorized(
                    "send a key of this server as Authorization: Bearer KEY or X-Api-Key: KEY"
                )
        target = parse_target(scope["raw_path"])
        model = self.table[target.endpoint]
        if scope["method"] not in METHODS:
            raise NotAllowed(f"{scope['method']} does nothing here; use GET, POST or PUT")
        if scope["query_string"]:
            raise QueryRefused(
                "a query string is not read; send its fields as multipart (curl -F) or JSON"
            )
        if self.draining:
            raise NotNow("the server is being stopped; ask another, or again later", retry_after=5)
        # Before the body is read: a caller who will be refused need not send it.
        model.check()
        # An empty body is told from none: TorchServe's answers differ.
        body = b"" if b"content-length" in call.headers else None
        if not call.whole:
            body = await read_body(receive, call.headers, self.body_limit, self.memory)
            call.whole, call.bytes_in = True, len(body)
        try:
            answer, call.version = await self.upstream.ask(
                model, scope["method"], target, call.headers, body, call.request_id
            )
        finally:
            self.memory.free(call.bytes_in)
        return answer

    async def _send(
        self,
        call: Call,
        answer: Answer,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if not call.whole and _is_small(call.headers):
            # Most often it is there already, and the connection can be kept.
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    call.whole = True
                    break
        told = ((b"x-request-id", call.request_id.encode()), (b"cache-control", b"no-store"))
        answer = Answer(answer.status, answer.body, (*answer.headers, *told))
        close = self.draining or not call.whole
        self.memory.hold(len(answer.body))
        try:
            await send_answer(send, answer, close=close, last=call.whole)
        finally:
            self.memory.free(len(answer.body))
        if not call.whole:
            await linger(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_small(headers: dict[bytes, bytes]) -> bool:
    announced = headers.get(b"content-length", b"")
    return announced.isdigit() and int(announced) <= SMALL and b"expect" not in headers


def _request_id(headers: dict[bytes, bytes]) -> str:
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _endpoint(raw_path: bytes, table: Table) -> str:
    steps = raw_path.split(b"/", 3)
    name = steps[2].decode("latin-1") if len(steps) > 2 else ""
    return name if name in table.models else "other"


@dataclass
class _NotCounted:
    status: int = 0


@contextmanager
def _not_timed(endpoint: str) -> Iterator[_NotCounted]:
    yield _NotCounted()
