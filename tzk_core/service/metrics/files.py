"""The text that Prometheus reads, from this process or from the files of all.

A process that ends leaves its files. Its gauges are forgotten, its counts go into one file for all
the dead, so that a server that replaces workers for months neither forgets nor fills its folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import psutil
from filelock import FileLock
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from tzk_core.service.metrics.definitions import REGISTRY, VARIABLE, WORKERS_ENDED

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

OF_A_PROCESS = re.compile(r"(?P<kind>[a-z]+)(?:_[a-z]+)?_(?P<pid>\d+)\.db")


def exposition() -> bytes:
    """All figures in Prometheus's text format, of the content type ``CONTENT_TYPE``."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return generate_latest(REGISTRY)
    with FileLock(Path(folder, "reading.lock"), timeout=10):
        _bury(Path(folder))
        registry = CollectorRegistry()
        registry.register(_Files(Path(folder)))
        return generate_latest(registry)


class _Files(Collector):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterable[Metric]:
        return _merged(self.folder.glob("*.db"), accumulate=True)


def _merged(files: Iterable[Path], *, accumulate: bool) -> Iterable[Metric]:
    # A file is empty for the moment between its making and its first figure.
    written = [str(file) for file in files if file.exists() and file.stat().st_size]
    return MultiProcessCollector.merge(written, accumulate=accumulate)


def _bury(folder: Path) -> None:
    left: dict[int, dict[str, Path]] = {}
    for file in folder.glob("*.db"):
        match = OF_A_PROCESS.fullmatch(file.name)
        if match:
            left.setdefault(int(match["pid"]), {})[match["kind"]] = file
    for pid, files in left.items():
        if _lives(pid):
            continue
        for model in _models_of(folder, pid):
            WORKERS_ENDED.labels(model).inc()
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram"):
            if kind in files:
                _fold(files[kind], folder / f"{kind}_dead.db")


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _models_of(folder: Path, pid: int) -> list[str]:
    """The models that the process ``pid`` served."""
    return [
        sample.labels["model"]
        for metric in _merged([folder / f"gauge_livesum_{pid}.db"], accumulate=True)
        for sample in metric.samples
        if sample.name == "tzk_workers" and sample.value > 0
    ]


def _fold(file: Path, into: Path) -> None:
    """Adds the counts in ``file`` to those in ``into``, and removes it."""
    aside = into.with_suffix(".aside")
    aside.unlink(missing_ok=True)
    sums = MmapedDict(str(aside))
    for metric in _merged([into, file], accumulate=False):
        for sample in metric.samples:
            names, values = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, values, metric.documentation)
            sums.write_value(key, sample.value, 0.0)
    sums.close()
    os.replace(aside, into)
    file.unlink()
