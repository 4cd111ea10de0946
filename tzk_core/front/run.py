"""The front's process: listening, watching, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from uvicorn.server import ServerState

from tzk_core.errors import TzkError
from tzk_core.front.access_log import AccessLog
from tzk_core.front.admin import AdminApp
from tzk_core.front.app import FrontApp
from tzk_core.front.bodies import Memory
from tzk_core.front.keys import Keys
from tzk_core.front.protocol import IDLE_SECONDS, GuardedProtocol, is_idle
from tzk_core.front.settings import FrontSettings
from tzk_core.front.table import Table
from tzk_core.front.upstream import Upstream
from tzk_core.front.watcher import Watcher

__all__ = ["main", "serve"]

log = logging.getLogger(__name__)

BACKLOG = 1024
MOST_CONNECTIONS = 2000
MEMORY = 512 * 2**20
"""Bytes of bodies and answers at a time; the front itself needs about 60 MB."""
LINGER_SECONDS = 1.0
"""For which kept connections are told, when the server ends, that they must go elsewhere."""
KEYS_SECONDS = 1.0


class Listener:
    """One listening socket and the connections made through it.

    Args:
        app: the ASGI application.
        most_connections: see ``GuardedProtocol``.
    """

    def __init__(self, app: Any, most_connections: int) -> None:
        self.state = ServerState()
        self._most = most_connections
        self._config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
        )
        self._config.load()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> GuardedProtocol:
            return GuardedProtocol(self._config, self.state, {}, loop, most_connections=self._most)

        self._server = await loop.create_server(protocol, sock=listening, backlog=BACKLOG)

    def tick(self) -> None:
        """Once a second: the Date header."""
        date = formatdate(time.time(), usegmt=True).encode()
        self.state.default_headers = [(b"date", date)]

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def busy(self) -> bool:
        return bool(self.state.tasks)

    def close_idle(self) -> None:
        for connection in list(self.state.connections):
            if is_idle(connection) or connection.cycle is None:
                connection.transport.close()

    def abort(self) -> None:
        for connection in list(self.state.connections):
            connection.transport.abort()


async def serve(settings: FrontSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set, then finishes what is in flight, ``drain`` seconds at most."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
        trust_env=False,
    )
    async with session:
        counting = _counting()
        table = Table(settings.models, settings.in_hand)
        watcher = Watcher(
            table, session, settings.management_url, settings.worker_log, counting["front_ready"]
        )
        keys_file = None if settings.keys_file is None else Path(settings.keys_file)
        keys = Keys(keys_file, settings.digests)
        access_log = AccessLog(settings.access_log)
        app = FrontApp(
            table,
            Upstream(session, settings.inference_url, watcher, settings.answer_seconds),
            keys,
            Memory(MEMORY),
            settings.body_limit,
            access_log,
            counting["front_request"],
        )
        public = Listener(app, _most_connections())
        admin = Listener(AdminApp(app, watcher, session, settings.metrics_url), 100)
        listeners = (public, admin)
        for one in listeners:
            one.tick()
        await watcher.refresh()
        watching = asyncio.ensure_future(watcher.run())
        ticking = asyncio.ensure_future(_tick(listeners, keys))
        try:
            await public.start(socket.socket(fileno=settings.public))
            await admin.start(socket.socket(fileno=settings.admin))
            await _first(stop.wait(), watching, ticking)
            await _drain(app, public, settings.drain)
        finally:
            for task in (watching, ticking):
                task.cancel()
            for one in listeners:
                one.stop_listening()
                one.abort()
            access_log.close()


async def _drain(app: FrontApp, public: Listener, seconds: float) -> None:
    """New connections are refused; kept ones are told to go elsewhere; the rest is finished."""
    began = time.monotonic()
    app.draining = True
    # One round of the loop: connections that the system has made already are taken.
    await asyncio.sleep(0)
    public.stop_listening()
    log.info("draining: %d requests in flight", len(public.state.tasks))
    while public.state.connections:
        spent = time.monotonic() - began
        if spent > seconds or (not public.busy and spent > LINGER_SECONDS):
            break
        await asyncio.sleep(0.02)
    log.info("drained: %d requests are cut off", len(public.state.tasks))
    public.close_idle()
    await asyncio.sleep(0.05)


async def _first(*awaited: Any) -> None:
    """Until the first ends; if that is by an error, it is raised."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _tick(listeners: tuple[Listener, ...], keys: Keys) -> None:
    while True:
        for one in listeners:
            one.tick()
        try:
            keys.refresh()
        except TzkError as error:
            log.error("the keys stay as they were: %s", error.detail)
        await asyncio.sleep(KEYS_SECONDS)


def _counting() -> dict[str, Any]:
    from tzk_core.service.metrics.front import front_ready, front_request

    return {"front_ready": front_ready, "front_request": front_request}


def _most_connections() -> int:
    """As many as files may be open, less those that go to TorchServe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + 100
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = ceiling
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 2)


async def _run(settings: FrontSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Standard input ends with who started this process: nothing is left running alone.
    loop.add_reader(sys.stdin.fileno(), _at_end, loop, stop)
    await serve(settings, stop)


def _at_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()


def main() -> None:
    """Reads ``FrontSettings`` as one line of JSON from standard input, and serves."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = FrontSettings.from_json(sys.stdin.buffer.raw.readline().decode())
    with contextlib.suppress(KeyboardInterrupt):
        import uvloop

        uvloop.run(_run(settings))
