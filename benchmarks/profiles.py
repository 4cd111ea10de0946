"""Where the time of a call goes: torch's profiler, told in shares that can be set side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

__all__ = ["largest", "profiled"]

CALLS = 5
SHOWN = 6  # operators in a line
MULTIPLY = ("conv", "mm", "linear_pointwise", "matmul")


def profiled(run: Callable[[], Any], device: str) -> dict[str, Any]:
    """The operators of one call of ``run``, which has warmed up.

    Returns:
        ``operators``: how many are called, on a GPU of kernels; ``multiply``: the share of the time
        that convolutions and matrix products take, forwards and backwards; ``shares``: of each
        operator, its own time without what it calls, the largest first. Times are the
        processor's on a CPU, and those of the kernels on a GPU.
    """
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        for _ in range(CALLS):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
    time = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = [
        each
        for each in recorded.key_averages()
        if getattr(each, time) > 0
        # On a GPU operators and the kernels that they launch tell of the same time.
        and (device == "cpu" or each.device_type == DeviceType.CUDA)
        and not each.is_user_annotation
    ]
    total = sum(getattr(each, time) for each in events)
    shares: dict[str, float] = {}
    for each in events:
        name = _plain(each.key)
        shares[name] = shares.get(name, 0.0) + getattr(each, time) / total
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return {
        "operators": round(sum(each.count for each in events) / CALLS),
        "multiply": sum(share for name, share in ordered if _multiplies(name)),
        "shares": dict(ordered),
    }


def largest(found: dict[str, Any]) -> str:
    """The largest shares in a line."""
    most = list(found["shares"].items())[:SHOWN]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in most)


def _plain(name: str) -> str:
    """Operators without their library; all that the compiler has made is one."""
    made = ("CompiledFxGraph", "Torch-Compiled Region", "CompiledFunction")
    return "compiled code" if any(part in name for part in made) else name.removeprefix("aten::")


def _multiplies(name: str) -> bool:
    return any(part in name.lower() for part in MULTIPLY)
