"""What the front sees of TorchServe, without Java and torch: corner cases at once, in order.

A worker is a real process that sleeps, so that killing one is what a worker's death is.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import httpx

from tzk_core.front.settings import FrontSettings
from tzk_core.launcher.front import Front, listening

__all__ = [
    "FrontOnStub",
    "Stub",
    "ask_for_nothing",
    "error",
    "read_all",
    "reset",
    "slow",
    "until",
]

Told = tuple[int, str, bytes]


def ask_for_nothing(request: BaseHTTPRequestHandler, body: bytes) -> Told:
    """The usual answer: what was asked, told back."""
    told = {"path": request.path, "bytes": len(body), "headers": dict(request.headers)}
    return 200, "application/json", json.dumps(told).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: socket.socket) -> None:
        self.close_request(request)  # alone, it is a reset where that is asked for

    def handle_error(self, *_: object) -> None:
        return


class Stub(AbstractContextManager):
    """Management and inference at one address; ``answer`` may be exchanged at any time."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler, bytes], Told] = ask_for_nothing
        self.version = "1.0"
        self.versions = {"1.0"}
        self.asked: list[str] = []
        self.management_seconds = 0.0
        self.batch_seconds = 120
        self.questions: list[int] = []  # how many were under way, at the begin of each
        self._under_way = 0
        self._lock = threading.Lock()
        self.status = "READY"
        self.worker = _sleeper()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub._serve(self)

            do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Stub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.kill()

    def kill(self) -> None:
        self.worker.kill()
        self.worker.wait()

    def replace_worker(self) -> None:
        self.kill()
        self.worker = _sleeper()

    def told(self) -> Told:
        described = {
            "modelVersion": self.version,
            "responseTimeout": self.batch_seconds,
            "workers": [{"pid": self.worker.pid, "status": self.status}],
        }
        return 200, "application/json", json.dumps([described]).encode()

    def _managed(self) -> Told:
        """What it was when the question came, after a while."""
        told = self.told()
        with self._lock:
            self._under_way += 1
            self.questions.append(self._under_way)
        time.sleep(self.management_seconds)
        with self._lock:
            self._under_way -= 1
        return told

    @property
    def under_way(self) -> int:
        """Questions that wait for their answer."""
        return self._under_way

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if request.path.startswith("/models/"):
            status, kind, content = self._managed()
        elif request.path == "/metrics":
            status, kind, content = 200, "text/plain", b"theirs_total 1.0\n"
        else:
            self.asked.append(request.path)
            version = request.path.split("/")[3]
            if version in self.versions:
                status, kind, content = self.answer(request, body)
            else:
                status, kind, content = error(404, "ModelVersionNotFoundException", "no version")
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("x-request-id", "torchserve-s-own")
        request.end_headers()
        request.wfile.write(content)


def error(status: int, kind: str, message: str) -> Told:
    """An error in TorchServe's form."""
    told = {"code": status, "type": kind, "message": message}
    return status, "application/json", json.dumps(told).encode()


def reset(request: BaseHTTPRequestHandler) -> NoReturn:
    """In place of an answer the connection is reset, as by a server that is killed."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


def slow(seconds: float) -> Callable[[BaseHTTPRequestHandler, bytes], Told]:
    def answer(request: BaseHTTPRequestHandler, body: bytes) -> Told:
        time.sleep(seconds)
        return ask_for_nothing(request, body)

    return answer


def _sleeper() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])


class FrontOnStub(AbstractContextManager):
    """A real front process before a stub; ``settings`` are those of ``FrontSettings``."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.stub = Stub()
        self.access_log = folder / "access.log"
        self.output = folder / "front.log"
        self.figures = folder / "figures"
        self._settings = settings

    def __enter__(self) -> FrontOnStub:
        self.stub.__enter__()
        sockets = [listening("127.0.0.1", 0, "--port") for _ in range(2)]

        def made(public: int, admin: int) -> FrontSettings:
            url = self.stub.url
            given = {"models": ("tzk_nll",), "access_log": str(self.access_log), "drain": 10.0}
            return FrontSettings(public, admin, url, url, url, **(given | self._settings))

        environment = {"PROMETHEUS_MULTIPROC_DIR": str(self.figures)}
        self._file = self.output.open("wb")
        self.front = Front(*sockets, made, environment, self._file)
        self.url = f"http://127.0.0.1:{self.front.port}"
        self.admin_url = f"http://127.0.0.1:{self.front.admin_port}"
        try:
            self.front.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.front.stop()
        self._file.close()
        self.stub.__exit__()

    def table(self) -> dict:
        return httpx.get(f"{self.admin_url}/front", trust_env=False).json()

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.front.port), timeout=60)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until something is true; a slow machine has long for it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    read = b""
    while piece := connection.recv(65536):
        read += piece
    return read
