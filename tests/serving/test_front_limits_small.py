"""Limits too high for a test, made small: slow readers, connections, memory.

The front runs in a thread here, so that its constants can be others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from pathlib import Path

import httpx
import pytest
from serving.stub_torchserve import Stub, ask_for_nothing, read_all, until

from tzk_core.front import protocol, run
from tzk_core.front.settings import FrontSettings
from tzk_core.launcher.front import listening
from tzk_core.ports import HOST

READ_SECONDS = 0.5
CONNECTIONS = 4
MEMORY = 2**20
PUT = b"PUT /predictions/tzk_nll HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
BIG = 32 * 2**20
"""More than the buffers of a connection hold."""


class FrontInThread:
    """``serve`` before a stub, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.stub = Stub()
        self._folder = folder
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> FrontInThread:
        self.stub.__enter__()
        self._public, self._admin = (listening(HOST, 0, "--port") for _ in range(2))
        self.port = self._public.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.admin_url = f"http://{HOST}:{self._admin.getsockname()[1]}"
        self._thread.start()
        self._started.wait()
        until(lambda: self.table()["ready"])
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self.stub.__exit__()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        url, log = self.stub.url, str(self._folder / "access.log")
        sockets = self._public.detach(), self._admin.detach()
        made = FrontSettings(*sockets, url, url, url, ("tzk_nll",), access_log=log, drain=1.0)
        await run.serve(made, self._stop)

    def table(self) -> dict:
        return httpx.get(f"{self.admin_url}/front", trust_env=False, timeout=30).json()

    def in_hand(self) -> int:
        return sum(self.table()["models"]["tzk_nll"]["in_hand"].values())

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=60)

    def ask(self, content: bytes = b"x") -> httpx.Response:
        url = f"{self.url}/predictions/tzk_nll"
        return httpx.put(url, content=content, trust_env=False, timeout=60)

    @contextlib.contextmanager
    def holding(self):
        """Within it nothing is answered."""
        go = threading.Event()

        def held(request, body):
            go.wait(60)
            return ask_for_nothing(request, body)

        self.stub.answer = held
        try:
            yield
        finally:
            go.set()
            self.stub.answer = ask_for_nothing


def whole_answer(connection: socket.socket) -> bytes:
    """Head and body of an answer after which the connection stays."""
    got = b""
    while True:
        got += connection.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(body) == int(length[1]):
            return got


@pytest.fixture
def fronted(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", READ_SECONDS)
    monkeypatch.setattr(run, "MOST_CONNECTIONS", CONNECTIONS)
    monkeypatch.setattr(run, "MEMORY", MEMORY)
    with FrontInThread(tmp_path) as fronted:
        yield fronted


def test_a_slow_reader_is_cut_off(fronted):
    """His answer leaves the memory, and nobody waits for him."""
    fronted.stub.answer = lambda *_: (200, "application/x-npy", bytes(BIG))
    with fronted.connect() as connection:
        connection.sendall(PUT)
        until(lambda: fronted.table()["bytes_held"] == BIG)
        fronted.stub.answer = ask_for_nothing
        assert httpx.get(f"{fronted.url}/ping", trust_env=False).status_code == 200
        until(lambda: fronted.table()["bytes_held"] == 0, 20)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                got += len(piece)
        assert 0 < got < BIG
    assert fronted.ask().status_code == 200


def test_who_reads_slowly_but_reads_gets_all(fronted):
    """The time is of each piece, not of the whole answer."""
    fronted.stub.answer = lambda *_: (200, "application/x-npy", bytes(BIG))
    head = PUT.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with fronted.connect() as connection:
        connection.sendall(head)
        got, wait = 0, threading.Event()
        while piece := connection.recv(2**20):
            got += len(piece)
            wait.wait(0.05)
    assert got > BIG


def test_too_many_connections(fronted):
    """Of busy ones no further is taken; of idle ones one makes room."""
    with contextlib.ExitStack() as opened:
        with fronted.holding():
            busy = [opened.enter_context(fronted.connect()) for _ in range(CONNECTIONS)]
            for one in busy:
                one.sendall(PUT)
            until(lambda: fronted.in_hand() == len(busy))
            with fronted.connect() as refused:
                answer = read_all(refused)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            assert "too many connections" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
        for one in busy:
            assert whole_answer(one).startswith(b"HTTP/1.1 200 ")
        assert fronted.ask().status_code == 200
        ended = []
        for one in busy:
            one.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                ended.append(one.recv(1))
        assert ended == [b""]


def test_memory_that_is_full(fronted):
    """What is large is refused, what is small goes on, and all of it comes back."""
    large = bytes(MEMORY * 3 // 4)
    with fronted.holding(), fronted.connect() as first:
        first.sendall(PUT.replace(b": 1\r\n\r\nx", b": %d\r\n\r\n" % len(large)) + large)
        until(lambda: fronted.table()["bytes_held"] == len(large))
        refused = fronted.ask(large)
        assert refused.status_code == 503
        assert "fill the memory" in refused.json()["detail"]
        assert "retry-after" in refused.headers
        assert fronted.table()["bytes_held"] == len(large)
        with fronted.connect() as small:
            small.sendall(PUT)
            until(lambda: fronted.table()["bytes_held"] == len(large) + 1)
    until(lambda: fronted.table()["bytes_held"] == 0)
    assert fronted.ask(large).status_code == 200
