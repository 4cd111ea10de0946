"""Every load of benchmarks/serving.py on every target, as rows of figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import serving_load
from serving_load import Load
from serving_processes import cpu_seconds
from serving_requests import ENDPOINT_OF, requests_of
from serving_tables import FULL, IN_PROCESS, Row, capacity
from serving_targets import InProcess, Target

from tzk_core.errors import WorkFailed

__all__ = ["Measuring", "failures", "seconds_of"]

WARM_CLIENTS = 4
"""Enough that batches of several sizes have run before a load."""
FIRST_WARMUPS = 5
"""In a row, before the first load: Java goes on compiling for thousands of requests."""
FULL_QUEUE = 503
LIMIT_BATCHES = (1, FULL)


def seconds_of(options: dict[str, Any], servers: int, limit: bool) -> float:
    """What all loads of all rounds take, without the start of the servers."""
    of_load = options["seconds"] + options["warmup"]
    loads = servers * (len(options["clients"]) + 1) + len(LIMIT_BATCHES) * limit
    of_round = of_load * loads + serving_load.GRACE_SECONDS * servers
    first = options["warmup"] * FIRST_WARMUPS * servers
    return (first + of_round * options["rounds"]) * len(options["kinds"])


def failures(rows: list[Row]) -> int:
    """Requests that failed, other than by a full queue in an open loop.

    There a server that slows down is sent more than it can answer, and has to say so; the tables
    count it as an error, the run goes on.
    """
    turned_away = sum(row["statuses"].get(FULL_QUEUE, 0) for row in rows if row["load"] == "open")
    return sum(row["errors"] for row in rows) - turned_away


class Measuring:
    """The loads of a run.

    Args:
        generator: of load.
        options: of the command.
        images: real ones.

    Attributes:
        rows: what was measured so far.
    """

    def __init__(self, generator: str, options: dict[str, Any], images) -> None:
        self.generator, self.options = generator, options
        self.requests = {kind: requests_of(kind, images) for kind in options["kinds"]}
        self.random = np.random.default_rng(options["seed"])
        self.rows: list[Row] = []

    def round(self, kind: str, number: int, targets: list[Target], limit: InProcess | None) -> None:
        """Every load on every target once; the open loop follows what the closed one showed."""
        requests, seconds = self.requests[kind], self.options["seconds"]
        for target in targets if number == 0 else []:
            self._warm(kind, target, FIRST_WARMUPS)
        if limit is not None:
            for batch in LIMIT_BATCHES:
                self._limit(kind, number, limit, batch)
        for clients in self.options["clients"]:
            for target in targets:
                self._warm(kind, target)

                def closed(target=target, clients=clients):
                    return serving_load.closed_loop(
                        self.generator, target.url, requests, clients, seconds
                    )

                self._load(kind, number, target, closed, "closed", clients)
        for target in targets:
            rate = self.options["share"] * (capacity(self.rows, kind, target.name, number) or 0)
            if not rate:
                continue
            times = serving_load.arrivals(rate, seconds, self.random)
            self._warm(kind, target)

            def opened(target=target, times=times):
                return serving_load.open_loop(self.generator, target.url, requests, times)

            self._load(kind, number, target, opened, "open", None)

    def _limit(self, kind: str, number: int, limit: InProcess, batch: int) -> None:
        endpoint, requests = ENDPOINT_OF[kind], self.requests[kind]
        if self.options["warmup"]:
            limit.measure(endpoint, requests, batch, self.options["warmup"])
        told = limit.measure(endpoint, requests, batch, self.options["seconds"])
        p50, p95, p99 = 1e3 * np.percentile(told["latencies"], (50, 95, 99))
        each = 1e3 * told["cpu_seconds"] / told["answers"]
        self.rows.append(
            {"kind": kind, "target": IN_PROCESS, "load": "in-process", "round": number}
            | {"clients": None, "batch": batch, "rate": told["answers"] / told["seconds"]}
            | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": told["errors"]}
            | {"late_share": 0.0, "cpu_ms": {IN_PROCESS: each}}
        )

    def _warm(self, kind: str, target: Target, times: int = 1) -> None:
        seconds = times * self.options["warmup"]
        if seconds:
            requests = self.requests[kind]
            serving_load.closed_loop(self.generator, target.url, requests, WARM_CLIENTS, seconds)

    def _load(
        self,
        kind: str,
        number: int,
        target: Target,
        send: Callable[[], Load],
        load: str,
        clients: int | None,
    ) -> None:
        try:
            parts = target.parts()
        except psutil.NoSuchProcess as error:
            raise WorkFailed(f"{target.name}: its process {error.pid} ended") from error
        before = cpu_seconds(parts)
        came = send()
        after = cpu_seconds(parts)
        used = {part: after[part] - before[part] for part in parts}
        used["generator"] = came.cpu_seconds
        count = max(1, came.answered)
        self.rows.append(
            {"kind": kind, "target": target.name, "load": load, "round": number}
            | {"clients": clients, "batch": None, "rate": came.rate, "sent": came.sent}
            | {f"p{q}_ms": came.percentile_ms(q) for q in (50, 95, 99)}
            | {"errors": came.errors, "statuses": came.statuses, "lost": came.lost}
            | {"late_share": came.late_share, "latest_ms": came.latest_ms}
            | {"cpu_ms": {part: 1e3 * seconds / count for part, seconds in used.items()}}
        )
