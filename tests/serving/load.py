"""Clients that ask one server again and again, and what came of each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx
from tiny_model import png

__all__ = ["CLIENTS", "IMAGE", "Outcome", "Outcomes", "load"]

CLIENTS = 8
IMAGE = png()


class Outcome(NamedTuple):
    """A status (or ``refused``: no connection), when it came, and how many seconds it took."""

    code: int | str
    at: float
    seconds: float


class Outcomes(list[Outcome]):
    """Of all clients, as they come."""

    clients: list[Future]

    def until_refused(self) -> None:
        """Until no client gets a connection any more; a request that was lost raises here."""
        for one in self.clients:
            one.result()

    def errors(self) -> list[Outcome]:
        return [one for one in self if one.code == 503]


@contextmanager
def load(url: str, endpoint: str = "tzk_nll") -> Iterator[Outcomes]:
    """``CLIENTS`` clients that score an image each as soon as they have their answer."""
    outcomes, over = Outcomes(), threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        outcomes.clients = [
            pool.submit(_ask, url, endpoint, over, outcomes) for _ in range(CLIENTS)
        ]
        try:
            yield outcomes
        finally:
            over.set()
    outcomes.until_refused()  # what went wrong in a client raises


def _ask(url: str, endpoint: str, over: threading.Event, outcomes: Outcomes) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=90) as http:
        while not over.is_set():
            began = time.monotonic()
            try:
                answer = http.put(f"/predictions/{endpoint}/1.0", content=IMAGE)
            except httpx.ConnectError:
                outcomes.append(Outcome("refused", time.monotonic(), time.monotonic() - began))
                return
            now = time.monotonic()
            outcomes.append(Outcome(answer.status_code, now, now - began))
            if answer.status_code == 503:
                assert "retry-after" in answer.headers
                time.sleep(0.05)
