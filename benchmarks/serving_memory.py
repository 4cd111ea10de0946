"""The memory of a server's processes while it is under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
from serving_processes import Parts, memory_mb
from serving_trend import FEWEST, trend, verdict

__all__ = ["JUDGED", "KINDS", "TOTAL", "Watch", "trends"]

KINDS = ("uss", "pss", "rss")
JUDGED = "uss"
"""What a process has to itself, where leaks are. A library's pages belong to PSS by so much as no
other process of the machine maps them, so that PSS falls and rises with what else is started."""
TOTAL = "total"
SHORTEST = 600.0
"""Seconds of a run whose memory is judged: Java compiles, and heaps fill, for minutes."""
TOO_SHORT = "too short"
SECONDS_AN_HOUR = 3600.0


class Watch:
    """Samples the memory of every process, again and again, as a context manager.

    Args:
        parts: gives the processes, which may be replaced.
        every: seconds from one sample to the next.

    Attributes:
        samples: one dictionary a sample: ``seconds`` since the start, and by part ``uss``, ``pss``
            and ``rss`` (MB) and how many ``files`` are open.
        seen: the process ids of each part that ever were there.
    """

    def __init__(self, parts: Callable[[], Parts], every: float) -> None:
        self._parts, self._every = parts, every
        self.samples: list[dict[str, Any]] = []
        self.seen: dict[str, set[int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def replaced(self, parts: Parts) -> int:
        """How many processes are gone that were there, of those that are there now."""
        now = {part: {one.pid for one in processes} for part, processes in parts.items()}
        return sum(len(pids - now.get(part, set())) for part, pids in self.seen.items())

    def _run(self) -> None:
        began = time.monotonic()
        for number in range(10**9):
            # From the start, so that what a sample takes does not add up.
            if self._end.wait(max(0.0, began + number * self._every - time.monotonic())):
                return
            told: dict[str, Any] = {"seconds": time.monotonic() - began}
            try:
                for part, processes in self._parts().items():
                    told[part] = _of_all(processes)
                    self.seen.setdefault(part, set()).update(one.pid for one in processes)
            except psutil.NoSuchProcess:
                continue  # one is just being replaced: `seen` has its id
            self.samples.append(told)


def trends(
    samples: list[dict[str, Any]],
    settle: float,
    most: float,
    kind: str = JUDGED,
    shortest: float = SHORTEST,
) -> dict[str, dict[str, Any]]:
    """The slope of each part's memory and of all together, in MB an hour.

    Args:
        samples: of a ``Watch``.
        settle: seconds at the start that are left out: caches and heaps fill then.
        most: the growth in an hour, as a share of the memory, below which it is flat.
        kind: one of ``KINDS``.
        shortest: seconds; of a shorter run slopes are told, but not judged.
    """
    kept = [sample for sample in samples if sample["seconds"] >= settle]
    if len(kept) < FEWEST:
        return {}
    hours = np.array([sample["seconds"] for sample in kept]) / SECONDS_AN_HOUR
    parts = [part for part in kept[0] if part != "seconds"]
    series = {part: np.array([sample[part][kind] for sample in kept]) for part in parts}
    series[TOTAL] = np.sum(list(series.values()), 0)
    told = {}
    for part, values in series.items():
        found = trend(hours, values)
        told[part] = found._asdict() | {"first": values[0], "last": values[-1]}
        judged = verdict(found, most * found.level) if kept[-1]["seconds"] > shortest else TOO_SHORT
        told[part] |= {"samples": len(kept), "verdict": judged}
    return told


def _of_all(processes: list[psutil.Process]) -> dict[str, float]:
    each = [memory_mb(one) | {"files": one.num_fds()} for one in processes]
    return {name: float(sum(one[name] for one in each)) for name in (*KINDS, "files")}
