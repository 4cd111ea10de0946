"""What processes use: processor time and memory by part, and what machine this is."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import psutil

from tzk_core._version import __version__
from tzk_core.devices import processors

__all__ = ["Parts", "cpu_seconds", "machine", "memory_mb"]

PACKAGES = ("torch", "torchserve", "uvicorn", "fastapi", "litserve", "aiohttp")

Parts = Mapping[str, Sequence[psutil.Process]]
"""The processes of each part of a server."""


def cpu_seconds(parts: Parts) -> dict[str, float]:
    """Processor time that each part has used so far."""
    return {name: sum(_cpu(one) for one in processes) for name, processes in parts.items()}


def memory_mb(process: psutil.Process) -> dict[str, float]:
    """RSS, PSS (shared pages divided among those that share them) and USS (without these) in MB."""
    told = process.memory_full_info()
    return {kind: getattr(told, kind) / 1e6 for kind in ("rss", "pss", "uss")}


def machine(threads: int) -> dict[str, Any]:
    """What figures depend on."""
    return {
        "processors": processors(),
        "processor": _processor_name(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "tzk": __version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": threads,
        "load_before": os.getloadavg()[0],
    }


def _cpu(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return used.user + used.system


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()
