"""TorchServe behind the front: what ``tzk serve`` runs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from tzk_core.front.settings import FrontSettings
from tzk_core.launcher.front import Front, listening
from tzk_core.launcher.server import Server
from tzk_core.launcher.settings import Settings, read_properties
from tzk_core.ports import HOST, free_port, must_be_free

__all__ = ["Serving"]

LOOK_SECONDS = 0.2
BODY_LIMIT = 16 * 2**20
JOB_QUEUE = 100
MARGIN_SECONDS = 10.0
"""TorchServe's time limit comes first: it names the batch, and replaces the worker."""


class Serving:
    """A server and its front, as a context manager: ready inside it, drained and ended after it.

    TorchServe listens for requests and for who reads its metrics on private loopback ports; the
    front has the ports that the settings name.

    Raises:
        UsageError: the call is wrong.
        WorkFailed: it cannot serve.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.digests = settings.check_callers()
        self.ports = settings.ports()
        inner = replace(
            settings,
            port=free_port(),
            management_port=self.ports["--management-port"],
            metrics_port=free_port(),
        )
        self.server = Server(inner)
        self.models = self.server.models
        self.front: Front | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Where the endpoints are, for a caller on this machine."""
        host = self.settings.host
        if host in ("0.0.0.0", "::"):
            host = HOST
        return f"http://{f'[{host}]' if ':' in host else host}:{self.ports['--port']}"

    @property
    def management_url(self) -> str:
        return self.server.management_url

    @property
    def admin_url(self) -> str:
        """Of metrics and the front's table."""
        return f"http://{HOST}:{self.ports['--metrics-port']}"

    @property
    def logs(self) -> Path:
        return self.server.logs

    def __enter__(self) -> Serving:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Until the server or its front ends, which they do only when something is wrong.

        Raises:
            WorkFailed: one ended.
        """
        while True:
            self.server.check()
            self.front.check()
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Takes no new request, finishes those in flight, then ends TorchServe."""
        try:
            if self.front is not None:
                self.front.stop()
        finally:
            self.front = None
            self.server.stop()
            self._cleanup.close()

    def _start(self) -> None:
        must_be_free(self.ports)
        public = self._cleanup.enter_context(
            listening(self.settings.host, self.ports["--port"], "--port")
        )
        admin = self._cleanup.enter_context(
            listening(HOST, self.ports["--metrics-port"], "--metrics-port")
        )
        self.server.start()
        output = self._cleanup.enter_context((self.logs / "front.log").open("wb"))
        # Before the workers are ready: /ping lives, and /ready says what is still missing.
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(self.server.figures)}
        self.front = Front(public, admin, self._front_settings, environment, output)
        self.server.wait_until_ready()
        self.front.wait_until_ready()

    def _front_settings(self, public: int, admin: int) -> FrontSettings:
        settings, server = self.settings, self.server
        said = read_properties(settings.config_file().read_text())
        keys = settings.keys_file
        return FrontSettings(
            public=public,
            admin=admin,
            inference_url=server.url,
            management_url=server.management_url,
            metrics_url=f"http://{HOST}:{server.ports['--metrics-port']}",
            models=tuple(self.models),
            keys_file=None if keys is None else str(keys.resolve()),
            digests=self.digests,
            body_limit=int(said.get("max_request_size", BODY_LIMIT)),
            in_hand=int(said.get("job_queue_size", JOB_QUEUE)),
            answer_seconds=max(settings.answer_seconds(self.models)) + MARGIN_SECONDS,
            drain=settings.drain,
            access_log=settings.access_log or str(self.logs / "access.log"),
            model_log=str(server.model_log),
        )
