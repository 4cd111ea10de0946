"""Load on an HTTP address: closed loop (so many clients) and open loop (so many a second).

wrk sends it where it is installed (Debian's package ``wrk``), with serving_wrk.lua; otherwise
serving_client.py on aiohttp does, which takes several times the processor. Either runs in a process
of its own, whose processor time is told.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tzk_core.errors import UsageError, WorkFailed

__all__ = [
    "GENERATORS",
    "Load",
    "Request",
    "arrivals",
    "closed_loop",
    "generator_named",
    "open_loop",
]

HERE = Path(__file__).parent
GENERATORS = ("wrk", "aiohttp")
GRACE_SECONDS = 3
"""For which answers to the last arrivals of an open loop are waited for."""
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """One request of a load.

    Args:
        path: of the URL.
        body: may be empty.
        headers: beside Host and Content-Length.
    """

    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def raw(self, host: str) -> bytes:
        """As it goes over the connection."""
        headers = {"Host": host, "Content-Length": str(len(self.body))} | self.headers
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Args:
        seconds: that it took.
        sent: requests; at the end of a closed loop one a client has no answer yet.
        statuses: answers by their HTTP status.
        lost: failures without an answer, by kind; `unanswered` are those of an open loop that
            got no answer within the grace, which nothing excuses.
        latencies: seconds, one an answer.
        late_share: of the arrivals of an open loop, those sent more than 5 ms after they were due
            because the generator was late or had no free connection.
        cpu_seconds: the generator's.
    """

    seconds: float
    sent: int
    statuses: dict[int, int]
    lost: dict[str, int]
    latencies: np.ndarray
    late_share: float
    latest_ms: float
    cpu_seconds: float

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Answers other than 200, and requests without one."""
        return self.answered - self.statuses.get(200, 0) + sum(self.lost.values())

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return self.statuses.get(200, 0) / self.seconds

    def percentile_ms(self, q: float) -> float | None:
        """``None`` without answers."""
        return float(np.percentile(self.latencies, q)) * 1e3 if len(self.latencies) else None


def generator_named(name: str) -> str:
    """``wrk`` or ``aiohttp``; ``auto`` is the first that is installed.

    Raises:
        UsageError: it is not installed.
    """
    if name in ("auto", "wrk") and shutil.which("wrk"):
        return "wrk"
    if name == "wrk":
        raise UsageError("wrk is not installed: apt-get install wrk, or use --generator aiohttp")
    return "aiohttp"


def arrivals(rate: float, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """The times (seconds, ascending) of a Poisson process of ``rate`` a second."""
    count = int(rate * seconds + 6 * math.sqrt(rate * seconds) + 10)
    times = np.cumsum(generator.exponential(1 / rate, count))
    return times[times < seconds]


def closed_loop(
    generator: str, url: str, requests: list[Request], clients: int, seconds: float
) -> Load:
    """``clients`` that each send the next request when the last is answered."""
    if generator == "wrk":
        whole = max(1, math.ceil(seconds))
        return _wrk(url, requests, ["-t", str(clients), "-c", str(clients), "-d", f"{whole}s"])
    return _aiohttp(url, requests, {"clients": clients, "seconds": seconds})


def open_loop(generator: str, url: str, requests: list[Request], times: np.ndarray) -> Load:
    """Each request is sent at its time, whatever became of those before."""
    if not len(times):
        raise WorkFailed("no request arrives in this time: give it more seconds")
    horizon = float(times[-1])
    if generator == "wrk":
        # So many that one is free, so few that none idles until a server closes it.
        connections = int(np.clip(2 * len(times) / horizon, 16, 256))
        duration = math.ceil(horizon) + GRACE_SECONDS
        options = ["-t", "1", "-c", str(connections), "-d", f"{duration}s"]
        load = _wrk(url, requests, options, times)
    else:
        load = _aiohttp(url, requests, {"arrivals": times.tolist(), "grace": GRACE_SECONDS})
    unanswered = load.sent - load.answered - sum(load.lost.values())
    unanswered = max(0, unanswered) + len(times) - load.sent
    return Load(**vars(load) | {"lost": load.lost | {"unanswered": unanswered}, "seconds": horizon})


def _wrk(url: str, requests: list[Request], options: list[str], times=None) -> Load:
    with tempfile.TemporaryDirectory(prefix="tzk-load-") as place:
        host = urlsplit(url).netloc
        with Path(place, "requests").open("wb") as file:
            for one in requests:
                raw = one.raw(host)
                file.write(b"%d\n%b" % (len(raw), raw))
        variables = {"TZK_REQUESTS": f"{place}/requests", "TZK_RESULT": f"{place}/result.json"}
        if times is not None:
            Path(place, "arrivals").write_text("".join(f"{1e3 * t:.3f}\n" for t in times))
            variables["TZK_ARRIVALS"] = f"{place}/arrivals"
        command = ["wrk", *options, "--timeout", f"{TIMEOUT_SECONDS}s"]
        return _result([*command, "-s", str(HERE / "serving_wrk.lua"), url], place, variables)


def _aiohttp(url: str, requests: list[Request], how: dict[str, Any]) -> Load:
    with tempfile.TemporaryDirectory(prefix="tzk-load-") as place:
        sent = [
            {"path": r.path, "headers": r.headers, "body": base64.b64encode(r.body).decode()}
            for r in requests
        ]
        told = how | {"url": url, "requests": sent, "timeout": TIMEOUT_SECONDS}
        Path(place, "load.json").write_text(json.dumps(told))
        command = [sys.executable, str(HERE / "serving_client.py"), f"{place}/load.json"]
        return _result([*command, f"{place}/result.json"], place, {})


def _result(command: list[str], place: str, variables: dict[str, str]) -> Load:
    inherited = {k: v for k, v in os.environ.items() if k != "TZK_ARRIVALS"}
    with Path(place, "said").open("w+b") as said:
        process = subprocess.Popen(
            command, env=inherited | variables, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            # Not Popen.wait: this also gives the processor time of this child alone.
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        result = Path(place, "result.json")
        if process.returncode or not result.is_file():
            said.seek(0)
            tail = said.read().decode(errors="replace").strip()[-500:]
            raise WorkFailed(f"{command[0]} ended with exit code {process.returncode}: {tail}")
    told = json.loads(result.read_text())
    return Load(
        seconds=told["seconds"],
        sent=told["sent"],
        statuses={int(status): count for status, count in told["statuses"].items()},
        lost={kind: count for kind, count in told["lost"].items() if count},
        latencies=np.array(told["latencies"]),
        late_share=told["late"] / max(1, told["sent"]),
        latest_ms=told["latest_ms"],
        cpu_seconds=used.ru_utime + used.ru_stime,
    )
