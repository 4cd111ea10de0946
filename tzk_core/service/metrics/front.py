"""What the front counts of each request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from tzk_core.service.metrics.definitions import REGISTRY, SECONDS
from tzk_core.service.metrics.labels import endpoint_label, status_class, status_label

__all__ = [
    "FRONT_ANSWERS",
    "FRONT_IN_FLIGHT",
    "FRONT_READY",
    "FRONT_SECONDS",
    "FrontRequest",
    "front_ready",
    "front_request",
]

FRONT_SECONDS = Histogram(
    "tzk_front_seconds",
    "Seconds of a request at the front, from its head to the last byte of its answer",
    ["endpoint", "status_class"],
    buckets=SECONDS,
    registry=REGISTRY,
)
FRONT_ANSWERS = Counter(
    "tzk_front_answers_total",
    "Answers of the front by status",
    ["endpoint", "status"],
    registry=REGISTRY,
)
FRONT_IN_FLIGHT = Gauge(
    "tzk_front_in_flight",
    "Requests that the front has taken and not answered yet",
    ["endpoint"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
# It has no label, so that it is there, and 0, as soon as this module is imported: in no worker.
FRONT_READY = Gauge(
    "tzk_front_ready",
    "1 while every endpoint has a live worker, else 0",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)


@dataclass
class FrontRequest:
    """A request on its way; ``status`` is the answer's, 0 (``other``) while there is none."""

    status: int = 0


@contextmanager
def front_request(endpoint: str) -> Iterator[FrontRequest]:
    """In flight inside it; counted and timed after it, whatever ended it.

        with front_request(name) as request:
            …
            request.status = answer.status_code

    Args:
        endpoint: the name in the URL; one that is no endpoint's counts as ``other``.
    """
    endpoint = endpoint_label(endpoint)
    request = FrontRequest()
    in_flight = FRONT_IN_FLIGHT.labels(endpoint)
    in_flight.inc()
    began = time.perf_counter()
    try:
        yield request
    finally:
        in_flight.dec()
        seconds = time.perf_counter() - began
        FRONT_SECONDS.labels(endpoint, status_class(request.status)).observe(seconds)
        FRONT_ANSWERS.labels(endpoint, status_label(request.status)).inc()


def front_ready(ready: bool) -> None:
    """Tells whether every endpoint has a live worker; not ready until this says so."""
    FRONT_READY.set(ready)
