"""One TorchServe process, with everything it starts, from start to end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from importlib import util
from pathlib import Path
from typing import IO

import httpx
import psutil

from tzk_core.errors import UsageError, WorkFailed
from tzk_core.front.keys import KEYS_VARIABLE
from tzk_core.front.worker_log import failures, said_last
from tzk_core.launcher.guard import Guard
from tzk_core.launcher.java import find_java
from tzk_core.launcher.settings import Settings, read_properties
from tzk_core.ports import HOST, must_be_free

__all__ = ["Server", "not_ready"]

LONGEST_FOLDER = 60
"""Sockets live in the temporary folder, and a socket's path has at most about 100 characters."""


class Server:
    """A running server, as a context manager: ready inside it, ended after it.

    Every server has its own temporary folder, log folder, pid file and session, so that none
    meets another's files and ending one ends nothing else. A guard ends it when the launcher is
    killed (:mod:`tzk_core.launcher.guard`).

    Raises:
        UsageError: the call is wrong (no archives, no such configuration).
        ModelUnavailable: an archive was changed since it was written.
        WorkFailed: it cannot serve: a port in use, no Java, a worker that cannot load, whose own
            error is told.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = settings.archives()
        self.ports = settings.ports()
        self._cleanup = contextlib.ExitStack()
        self._process: subprocess.Popen | None = None
        self._guard: Guard | None = None

    @property
    def url(self) -> str:
        """Where the endpoints are."""
        return f"http://{HOST}:{self.ports['--port']}"

    @property
    def management_url(self) -> str:
        return f"http://{HOST}:{self.ports['--management-port']}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Server:
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Until the process ends, which it does by itself only when something is wrong.

        Raises:
            WorkFailed: it ended.
        """
        self._process.wait()
        self.check()

    def check(self) -> None:
        """Raises WorkFailed if the process has ended."""
        code = self._process.poll()
        if code is None:
            return
        raise WorkFailed(f"the server ended by itself with exit code {code}: {self._tail()}")

    def stop(self, patience: float = 10.0) -> None:
        """Ends the server and all that it started: asks first, kills after ``patience`` seconds."""
        try:
            if self._process is not None:
                self._end(patience)
        finally:
            self._process = None
            if self._guard is not None:
                self._guard.release()
                self._guard = None
            self._cleanup.close()

    def start(self) -> None:
        """Starts the process, with ``logs`` and ``figures`` as its folders, and does not wait."""
        must_be_free(self.ports)
        java = find_java()
        home = _torchserve()
        settings = self.settings
        # Read before the file is written, so that a wrong option starts nothing.
        config_text = settings.properties(self.ports, self.models)
        settings.check_archives(self.models)
        folder = self._private_folder()
        self.logs = (settings.logs or folder / "logs").resolve()
        self.figures = folder / "figures"
        for made in (folder / "tmp", self.logs, self.figures):
            made.mkdir(parents=True, exist_ok=True)
        # What an earlier server said there is not what this one's workers say.
        self.model_log.unlink(missing_ok=True)
        config = folder / "config.properties"
        config.write_text(config_text)
        command = [
            str(java),
            *read_properties(config_text).get("vmargs", "").split(),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            "-cp",
            str(home / "ts" / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable, "-f", str(config), "-ncs"),
            *("-s", str(settings.model_store.resolve())),
        ]
        self._guard = Guard(folder)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=self._environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=self._output(),
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches us alone, and we end it in order. Its workers are in
            # its process group, which the guard can end as a whole.
            start_new_session=True,
        )
        self._guard.watch(self._process.pid)
        (folder / "server.pid").write_text(f"{self._process.pid}\n")

    def _private_folder(self) -> Path:
        base = None if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
        made = tempfile.TemporaryDirectory(prefix="tzk-", dir=base, ignore_cleanup_errors=True)
        return Path(self._cleanup.enter_context(made))

    def _environment(self, folder: Path) -> dict[str, str]:
        temporary = str(folder / "tmp")
        unwanted = ("TS_CONFIG_FILE", KEYS_VARIABLE)
        inherited = {k: v for k, v in os.environ.items() if k not in unwanted}
        return (
            inherited
            | self.settings.environment(self.models)
            | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
            | dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION"), str(self.logs))
            # Where workers and the front leave the figures that Prometheus reads.
            | {"PYTHONUNBUFFERED": "1", "PROMETHEUS_MULTIPROC_DIR": str(self.figures)}
            # Workers' JSON lines: to their standard output, which is the model log.
            | {"TZK_LOGS": os.environ.get("TZK_LOGS", "-")}
        )

    def _output(self) -> IO[bytes]:
        return self._cleanup.enter_context((self.logs / "torchserve.log").open("wb"))

    @property
    def model_log(self) -> Path:
        """What the workers say."""
        return self.logs / "model_log.log"

    def wait_until_ready(self) -> None:
        """Until every model has a live worker.

        Raises:
            WorkFailed: the process ended, a worker could not load, or it took too long.
        """
        seconds = max(self.settings.start_seconds(self.models).values())
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=2.0) as client:
            while True:
                code = self._process.poll()
                if code is not None:
                    raise WorkFailed(
                        f"the server did not start: {self._process.args[0]} ended with exit code "
                        f"{code}: {self._tail()}"
                    )
                waiting = not_ready(client, self.management_url, self.models)
                if not waiting:
                    return
                self._check_workers()
                if time.monotonic() > deadline:
                    name = next(iter(waiting))
                    raise WorkFailed(
                        f"{', '.join(waiting)}: no worker was ready within {seconds:g} s "
                        f"(--start-timeout gives them more); {name}'s said last: "
                        f"{said_last(self.model_log, name) or self._tail()}"
                    )
                time.sleep(0.2)

    def _check_workers(self) -> None:
        if not failures(self.model_log):
            return
        time.sleep(0.5)  # the others fail by the same cause, and are told of together
        by_error: dict[str, list[str]] = {}
        for model, error in failures(self.model_log).items():
            by_error.setdefault(error, []).append(model)
        told = "; ".join(f"{', '.join(models)}: {error}" for error, models in by_error.items())
        raise WorkFailed(f"a worker could not load its model: {told}")

    def _tail(self) -> str:
        """What the server itself said last."""
        said = (self.logs / "torchserve.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(said[-5:]) or "it said nothing"

    def _end(self, patience: float) -> None:
        try:
            server = psutil.Process(self._process.pid)
            started = server.children(recursive=True)
        except psutil.NoSuchProcess:
            started = []
        try:
            self._process.terminate()
            self._process.wait(patience)
            # Workers end by themselves when their server does, unless they are busy.
            _, left = psutil.wait_procs(started, timeout=min(patience, 2.0))
            for process in left:
                _quietly(process.terminate)
            psutil.wait_procs(left, timeout=min(patience, 3.0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass  # out of patience, ours or the user's: they are killed below
        finally:
            # psutil knows a process by its start time too, so that none but ours is killed.
            for process in started:
                _quietly(process.kill)
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()


def not_ready(client: httpx.Client, management_url: str, models: list[str]) -> dict[str, str]:
    """The models without a live worker, with the reason, by asking the management address."""
    waiting = {}
    for name in models:
        try:
            answer = client.get(f"{management_url}/models/{name}")
            answer.raise_for_status()
            workers = answer.json()[0]["workers"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            waiting[name] = str(error) or type(error).__name__
            continue
        states = [worker["status"] for worker in workers]
        if "READY" not in states:
            waiting[name] = f"its workers are {', '.join(states) or 'none'}"
    return waiting


def _torchserve() -> Path:
    """The folder that holds the package ``ts``, found without importing it."""
    found = util.find_spec("ts")
    if found is None or not found.submodule_search_locations or util.find_spec("yaml") is None:
        raise UsageError("serving needs TorchServe: pip install '.[serve]' in the clone")
    return Path(found.submodule_search_locations[0]).parent


def _quietly(signal) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        signal()
