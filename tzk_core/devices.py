"""Where work is done: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, and on how many processors."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from tzk_core.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["device_named", "processors"]


def device_named(name: str | torch.device = "auto") -> torch.device:
    """The device of that name, which is there; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: it is none of those, or it is not there.
    """
    name = str(name)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r} is none: use auto, cpu, cuda or cuda:N")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= there:
        raise UsageError(f"device {name} was asked for, but torch finds {there or 'no'} GPU here")
    return torch.device(name)


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
