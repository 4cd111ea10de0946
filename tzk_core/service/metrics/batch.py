"""One batch as metrics and logs see it: stages, request ids, what failed."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.service.logs import about
from tzk_core.service.metrics.definitions import ANSWERS, BATCH_REQUESTS, ERRORS, STAGE_SECONDS
from tzk_core.service.metrics.labels import endpoint_label, error_labels, status_class
from tzk_core.service.metrics.quality import count_scores
from tzk_core.service.metrics.stages import Stopwatch
from tzk_core.service.wire import RawAnswer

__all__ = ["REQUEST_ID", "REQUEST_START", "Watch", "waited"]

REQUEST_ID = "X-Request-Id"
REQUEST_START = "X-Request-Start"

PLAIN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
LONGEST_WAIT = 600.0
"""Seconds; a clock that is wrong, or a client that makes the header up, says more or less."""

log = logging.getLogger("tzk_core.service.requests")


class Watch:
    """A batch from the moment it is handed over.

    Args:
        endpoint: whose batch it is.
        headers: of each request, names in lower case.
        model: the label of the model that answers.
    """

    def __init__(self, endpoint: str, headers: Sequence[Mapping[str, str]], model: str) -> None:
        self._began = time.perf_counter()
        now = time.time()
        self.endpoint = endpoint_label(endpoint)
        self.model = model
        self.ids = [_request_id(one) for one in headers]
        self.waits = [waited(one.get(REQUEST_START.lower(), ""), now) for one in headers]
        self.stopwatch = Stopwatch()
        self._failures: list[list[TzkError]] = [[] for _ in headers]

    def stage(self, name: str) -> AbstractContextManager[None]:
        return self.stopwatch.stage(name)

    def logs(self) -> AbstractContextManager[None]:
        """Records inside it, such as an error's traceback, name the requests of the batch."""
        return about(endpoint=self.endpoint, request_ids=[one for one in self.ids if one])

    def failed(self, index: int, error: TzkError) -> TzkError:
        """Counts an item of the request ``index`` that failed; one of our making tells its id.

        A request that came without an id has one from its failure on, so that what its sender
        was told is found in the log.
        """
        self.ids[index] = self.ids[index] or uuid.uuid4().hex
        if error.status >= 500:
            error.extensions = error.extensions | {"request_id": self.ids[index]}
        self._failures[index].append(error)
        return error

    def finished(self, answers: Sequence[RawAnswer], results: Sequence[Any]) -> list[RawAnswer]:
        """The answers with their requests' ids; counts and logs the batch.

        What cannot be counted, on a disk that is full, costs no answer.

        Args:
            answers: one for each request.
            results: what the endpoint gave, one for each item.
        """
        seconds = time.perf_counter() - self._began
        try:
            self._count(answers, seconds)
            count_scores(self.model, results)
        except OSError as error:
            log.error("The metrics of a batch could not be written: %s", error)
        self._tell(answers, seconds)
        return [
            replace(answer, headers={**answer.headers, REQUEST_ID: one}) if one else answer
            for answer, one in zip(answers, self.ids, strict=True)
        ]

    def _count(self, answers: Sequence[RawAnswer], seconds: float) -> None:
        BATCH_REQUESTS.labels(self.endpoint).observe(len(answers))
        stages = [
            (_stage(self.endpoint, name), taken) for name, taken in self.stopwatch.seconds.items()
        ]
        queue, total = _stage(self.endpoint, "queue"), _stage(self.endpoint, "total")
        for answer, wait in zip(answers, self.waits, strict=True):
            for histogram, taken in stages:
                histogram.observe(taken)
            if wait is not None:
                queue.observe(wait)
            total.observe(seconds + (wait or 0.0))
            _answered(self.endpoint, status_class(answer.status)).inc()
        for failures in self._failures:
            for error in failures:
                ERRORS.labels(self.endpoint, *error_labels(error)).inc()

    def _tell(self, answers: Sequence[RawAnswer], seconds: float) -> None:
        for index, failures in enumerate(self._failures):
            if failures:
                self._tell_failure(index, failures, answers[index].status)
        if log.isEnabledFor(logging.INFO):
            log.info("batch", extra={"fields": self._fields(answers, seconds)})

    def _tell_failure(self, index: int, failures: Sequence[TzkError], status: int) -> None:
        ours = any(error.status >= 500 for error in failures)
        fields = {
            "endpoint": self.endpoint,
            "request_id": self.ids[index],
            "status": status,
            # Not the detail: it may quote what was sent.
            "errors": dict(Counter(" ".join(error_labels(error)) for error in failures)),
        }
        level = logging.ERROR if ours else logging.INFO
        log.log(level, "request failed", extra={"fields": fields})

    def _fields(self, answers: Sequence[RawAnswer], seconds: float) -> dict[str, Any]:
        waits = [wait for wait in self.waits if wait is not None]
        return {
            "endpoint": self.endpoint,
            "model": self.model,
            "requests": len(answers),
            "statuses": dict(Counter(answer.status for answer in answers)),
            "ms": {
                **{name: _ms(taken) for name, taken in self.stopwatch.seconds.items()},
                **({"longest_queue": _ms(max(waits))} if waits else {}),
                "worker": _ms(seconds),
            },
            "request_ids": [one for one in self.ids if one],
        }


def waited(header: str, now: float) -> float | None:
    """Seconds from the front's ``X-Request-Start`` (Unix seconds) to ``now``, if plausible.

    >>> waited("1700000000.25", 1700000000.75), waited("t=yesterday", 1700000000.0)
    (0.5, None)
    """
    try:
        # nginx's way of writing it begins with t=.
        seconds = now - float(header.removeprefix("t="))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_WAIT else None


def _request_id(headers: Mapping[str, str]) -> str | None:
    # Another kind of text could be anything, a key too: it is neither logged nor sent back.
    sent = headers.get(REQUEST_ID.lower(), "")
    return sent if PLAIN_ID.fullmatch(sent) else None


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


@cache
def _stage(endpoint: str, stage: str):
    return STAGE_SECONDS.labels(endpoint, stage)


@cache
def _answered(endpoint: str, group: str):
    return ANSWERS.labels(endpoint, group)
