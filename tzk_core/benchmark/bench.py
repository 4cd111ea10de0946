"""``bench``: every backend that can run here, in turn, and which to pick."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tzk_core.devices import conditions_on, device_named, processors, repeatable
from tzk_core.service.service import Service
from tzk_core.service.sizes import UNMEASURED
from tzk_core.service.wire import RawAnswer, RawRequest

from . import measuring
from .cases import Case
from .measuring import Apart, Timing
from .variants import Ready, made_ready, reason_of, usual

__all__ = ["BATCHES", "MARGIN", "bench", "recommended"]

BATCHES = (1, 16)
MARGIN = 1.05
"""How many times as fast as torch, which needs nothing and starts soonest, a backend has to be."""

SLOW_TO_START = ("compile", "onnx")

Progress = Callable[[str], None]


def bench(
    run: str | Path,
    *,
    device: str = "auto",
    backends: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Times requests by every backend, in this process, as a handler would.

    They score and sample; of a model with knowledge also with its first path given, and they ask
    which knowledge applies. A backend that cannot run is left out, with the reason. Torch is always
    there, as the others' answers are compared with its.

    Args:
        run: a run folder or a hub name.
        device: auto, cpu, cuda or cuda:N.
        backends: of :data:`tzk_core.benchmark.variants.NAMES`; without, those worth it there.
        batches: how many requests a call answers.
        seconds: of each backend, endpoint and batch; with and without knowledge share them.
        progress: told what is being done.

    Returns:
        The report: ``conditions``, ``busy`` (what else used the processors, or none), ``rows``,
        ``starts``, ``left_out`` (reasons by backend), ``recommended`` and ``why``.

    Raises:
        TzkError: torch itself cannot run the model.
    """
    tell = progress or (lambda said: None)
    where = device_named(device)
    if where.type == "cuda":
        repeatable()  # as a worker on a GPU does
    busy = _busy()
    names = list(dict.fromkeys(["torch", *(backends or usual(where))]))
    batches = list(dict.fromkeys(batches))
    with tempfile.TemporaryDirectory(prefix="tzk-bench-") as aside:
        bed = _Bed(run, where, batches, Path(aside), tell)
        for name in names:
            bed.add(name)
        rows = [
            row for case in bed.cases for batch in batches for row in bed.rows(case, batch, seconds)
        ]
    best, why = recommended(rows, where.type)
    return {
        "run": str(run),
        "conditions": conditions_on(where),
        "busy": busy,
        "seconds": seconds,
        "rows": rows,
        "starts": bed.starts,
        "left_out": bed.left_out,
        "recommended": best,
        "why": why,
    }


def recommended(rows: Sequence[dict[str, Any]], device: str) -> tuple[str, str]:
    """The backend to serve with: the fastest, over all rows, whose answers all agree with torch's.

    Every row counts the same: the geometric mean over what is asked and the batches.

    Returns:
        Its name, and a line that says why and how.
    """
    names = list(dict.fromkeys(row["backend"] for row in rows))
    speed = {
        name: math.exp(
            statistics.mean(math.log(r["times_as_fast"]) for r in rows if r["backend"] == name)
        )
        for name in names
    }
    agreeing = [n for n in names if all(r["agrees"] for r in rows if r["backend"] == n)]
    best = max(agreeing, key=speed.__getitem__)
    if speed[best] < MARGIN:
        best = "torch"
    # Torch on a GPU is served by graphs, whichever was the faster.
    shown = "graphs" if best == "torch" and device == "cuda" and "graphs" in agreeing else best
    why = f"{shown}: {_reason(shown, speed)}; {_how(shown, device)}"
    close = [n for n in names if n not in agreeing and speed[n] >= MARGIN * speed[shown]]
    for name in close:
        why += f" ({name} is {speed[name]:.2f} times as fast as torch, but its answers differ"
        why += f" by more than the tolerance: {_how(name, device)})"
    return shown, why


class _Bed:
    """The backends that are ready, and those that are not."""

    def __init__(self, run, device, batches: Sequence[int], folder: Path, tell: Progress) -> None:
        self.run, self.device, self.batches = run, device, batches
        self.folder, self.tell = folder, tell
        self.ready: list[Ready] = []
        self.starts: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        self._raws: dict[Case, list[RawRequest]] = {}
        self._wanted: dict[tuple[Case, int], list[RawAnswer]] = {}
        self._apart: dict[tuple[str, Case, int], Apart] = {}

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(self._raws)

    def add(self, name: str) -> None:
        """Makes a backend ready, with its first requests and its answers, or says why not."""
        minutes = ", which takes minutes" if name in SLOW_TO_START else ""
        self.tell(f"{name}: loading and warming up{minutes}")
        folder = self.folder / name
        folder.mkdir()
        try:
            one = made_ready(name, self.run, self.device, folder)
            firsts = self._firsts(one)
            answers = self._answers(one)
        except Exception as error:  # a compiler's and an exporter's errors are of any kind
            if name == "torch":
                raise
            self.left_out[name] = reason_of(error)
            self.tell(f"{name}: left out, {self.left_out[name]}")
            return
        self._wanted = self._wanted or answers
        for (case, batch), got in answers.items():
            found = measuring.apart(case.endpoint, got, self._wanted[case, batch])
            self._apart[name, case, batch] = found
        self.starts[name] = {"ready_s": one.seconds, **firsts}
        self.ready.append(one)

    def rows(self, case: Case, batch: int, seconds: float) -> list[dict[str, Any]]:
        """One of each backend."""
        self.tell(f"{case.name}, batch {batch}: {', '.join(one.name for one in self.ready)}")
        own = seconds / sum(other.endpoint == case.endpoint for other in self.cases)
        timings = measuring.timed(self.ready, case.endpoint, self._raws[case], batch, own)
        return [
            self._row(one.name, case, batch, timings[one.name], timings["torch"])
            for one in self.ready
        ]

    def _row(self, name: str, case: Case, batch: int, own: Timing, base: Timing) -> dict:
        far = self._apart[name, case, batch]
        return {
            "backend": name,
            "endpoint": case.name,
            "batch": batch,
            "ms": 1e3 * own.median,
            "images_per_s": batch / own.median,
            "times_as_fast": own.times_as_fast(base),
            "log_p_apart_nats": far.nats,
            "levels_apart": far.levels,
            "pixels_apart": far.pixels,
            "agrees": far.agrees,
        }

    def _firsts(self, one: Ready) -> dict[str, dict[str, Any]]:
        if not self._raws:
            # Drawn by another model, so that the first request is the first that `one` answers.
            sizes = {case.endpoint: UNMEASURED for case in one.cases}
            plain = Ready("torch", Service.load(self.run, self.device), sizes)
            self._raws = measuring.requests(plain)
        found = {}
        for case, raws in self._raws.items():
            taken = measuring.first_requests(one, case.endpoint, raws)
            ms = [1e3 * seconds for seconds in taken]
            found[case.name] = {"first_ms": ms[0], "next_ms": statistics.median(ms[1:]), "ms": ms}
        return found

    def _answers(self, one: Ready) -> dict[tuple[Case, int], list[RawAnswer]]:
        return {
            (case, batch): measuring.checked(one, case.endpoint, raws[:batch])
            for case, raws in self._raws.items()
            for batch in self.batches
        }


def _busy() -> str | None:
    """Whether others use the processors that this process wants, in words."""
    if not hasattr(os, "getloadavg"):  # not on every system
        return None
    load, there = os.getloadavg()[0], processors()
    if load + min(torch.get_num_threads(), there) <= there + 0.5:
        return None
    return f"others used {load:.1f} of {there} processors"


def _reason(name: str, speed: dict[str, float]) -> str:
    if speed[name] < MARGIN:
        return f"no other whose answers agree is {MARGIN - 1:.0%} faster than torch"
    return f"{speed[name]:.2f} times as fast as torch, and its answers agree"


def _how(name: str, device: str) -> str:
    """What serves by it."""
    if name == "bf16":
        if device == "cuda":
            return "tzk archive RUN --bf16"
        return "TZK_NETWORKS=bfloat16 in the environment of tzk serve"
    return f"tzk archive RUN --backend {'torch' if name == 'graphs' else name}"
