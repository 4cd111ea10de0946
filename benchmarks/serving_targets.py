"""What is measured: our server (at its handlers and through its front), its peers, and the limit.

A target is somewhere to send requests, and the processes that answer them by part.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from serving_load import Request
from serving_processes import Parts

from tzk_core.errors import UsageError, WorkFailed
from tzk_core.launcher import Serving, Settings
from tzk_core.ports import HOST, free_port
from tzk_export.archive import archive

__all__ = ["PEERS", "InProcess", "Target", "addresses", "in_process", "ours", "parts_of", "peer"]

HERE = Path(__file__).parent
START_SECONDS = 300
"""For a server to be ready: minutes, where others take its processors."""


class Target(NamedTuple):
    """A server that listens.

    Args:
        name: ``handlers``, ``front``, ``fastapi`` or ``litserve``.
        url: of the server; endpoints are below ``/predictions/``.
        parts: gives its processes, which may be replaced while it runs.
    """

    name: str
    url: str
    parts: Callable[[], Parts]


@dataclass(frozen=True)
class Place:
    """What every target is started with.

    Args:
        run: the model's folder.
        folder: for scratch files.
        threads: of torch in every process that computes.
    """

    run: Path
    folder: Path
    device: str = "cpu"
    threads: int = 1

    def environment(self, name: str) -> dict[str, str]:
        """Variables of a process that computes: figures are in files, as under the launcher."""
        figures = self.folder / f"{name}-figures"
        figures.mkdir(parents=True, exist_ok=True)
        number = str(self.threads)
        own = {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
        own |= {"PROMETHEUS_MULTIPROC_DIR": str(figures), "OMP_WAIT_POLICY": "PASSIVE"}
        return {k: v for k, v in os.environ.items() if k != "TZK_LOGS"} | own


# -- ours ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ours(place: Place, config: Path | None = None, backend: str = "torch") -> Iterator[Serving]:
    """``tzk serve`` with archives of the model, on free ports.

    Args:
        config: TorchServe's configuration, tzk's own when left out.
        backend: of the archives.
    """
    store = place.folder / "store"
    archive(place.run, store, backend=backend)
    settings = Settings(
        model_store=store,
        port=0,
        device=place.device,
        threads=place.threads,
        config=config,
        start_timeout=START_SECONDS,
    )
    with Serving(settings) as serving:
        yield serving


def addresses(serving: Serving) -> dict[str, str]:
    """The addresses by target: TorchServe's own, which only the front calls, and the front's."""
    return {"handlers": serving.server.url, "front": serving.url}


def parts_of(serving: Serving, *, front: bool = True) -> Parts:
    """The front, TorchServe's JVM, and its workers."""
    jvm = psutil.Process(serving.server.pid)
    parts = {"front": [psutil.Process(serving.front.pid)]} if front else {}
    return parts | {"TorchServe": [jvm], "workers": jvm.children(recursive=True)}


# -- peers -----------------------------------------------------------------------------------------

PEERS = ("fastapi", "litserve")


@contextlib.contextmanager
def peer(name: str, place: Place) -> Iterator[Target]:
    """FastAPI by hand or LitServe, in a process of its own.

    Raises:
        UsageError: it is not installed.
    """
    if util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed: pip install '.[bench]' in the clone")
    port = free_port()
    workers = place.folder / f"{name}-workers"
    workers.mkdir(exist_ok=True)
    script = HERE / f"serving_peer_{name}.py"
    command = [sys.executable, str(script), str(place.run), place.device, str(port)]
    variables = place.environment(name) | {"TZK_BENCH_WORKERS": str(workers)}
    with _process(command, variables, place.folder / f"{name}.log") as process:
        url = f"http://{HOST}:{port}"
        _wait_until(lambda: _listens(url), process, place.folder / f"{name}.log")

        def parts() -> Parts:
            root = psutil.Process(process.pid)
            every = [root, *root.children(recursive=True)]
            computing = [one for one in every if (workers / str(one.pid)).exists()]
            rest = [one for one in every if one not in computing]
            return {"server": rest} | ({"workers": computing} if computing else {})

        yield Target(name, url, parts)


# -- the limit -------------------------------------------------------------------------------------


class InProcess:
    """The service's own call, in a process that serves nobody."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def measure(
        self, endpoint: str, requests: list[Request], batch: int, seconds: float
    ) -> dict[str, Any]:
        """What ``serving_inprocess.measured`` gives."""
        told = {
            "endpoint": endpoint,
            "batch": batch,
            "seconds": seconds,
            "requests": [
                ({k.lower(): v for k, v in r.headers.items()}, base64.b64encode(r.body).decode())
                for r in requests
            ],
        }
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> bytes:
        line = self._process.stdout.readline()
        if not line:
            raise WorkFailed("the process that calls the service ended")
        return line


@contextlib.contextmanager
def in_process(place: Place) -> Iterator[InProcess]:
    command = [sys.executable, str(HERE / "serving_inprocess.py"), str(place.run), place.device]
    variables = place.environment("in-process")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with _process(command, variables, place.folder / "in-process.log", **pipes) as process:
        made = InProcess(process)
        made._line()  # it is ready
        yield made


# -- processes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(
    command: list[str], environment: dict[str, str], log: Path, **pipes: int
) -> Iterator[subprocess.Popen]:
    """A process, ended with all that it started."""
    with log.open("wb") as output, tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(
            command,
            cwd=place,
            env=environment,
            **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output} | pipes,
        )
        try:
            yield process
        finally:
            started = _children(process.pid)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            for one in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            if process.poll() is None:
                process.kill()
            process.wait()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _listens(url: str) -> bool:
    try:
        # Any request of ours: what needs no image.
        answer = httpx.post(f"{url}/predictions/tzk_sample/1.0", trust_env=False, timeout=30)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def _wait_until(reached: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not reached():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").strip()[-800:]
            raise WorkFailed(f"{log.stem} did not start: {tail}")
        time.sleep(0.2)
