"""Where the time of a call goes: torch's profiler, told in shares that can be set side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["fused", "largest", "profiled"]

CALLS = 5
TURNS = 15  # of the fused layers with what is fused and without
SHOWN = 6  # operators in a line
MULTIPLY = ("conv", "mm", "linear_pointwise", "matmul")
FUSED = ("mkldnn::_convolution_pointwise", "mkldnn::_linear_pointwise")


def profiled(run: Callable[[], Any], device: str) -> dict[str, Any]:
    """The operators of one call of ``run``, which has warmed up.

    Returns:
        ``operators``: how many are called, on a GPU of kernels; ``multiply``: the share of the time
        that convolutions and matrix products take, forwards and backwards, oneDNN's fused layers
        with the activation within them; ``multiply_alone``: the same less that activation;
        ``fused``: what :func:`fused` says of it, None where nothing is; ``shares``: of each
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
    spent = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = [
        each
        for each in recorded.key_averages()
        if getattr(each, spent) > 0
        # On a GPU operators and the kernels that they launch tell of the same time.
        and (device == "cpu" or each.device_type == DeviceType.CUDA)
        and not each.is_user_annotation
    ]
    total = sum(getattr(each, spent) for each in events)
    shares: dict[str, float] = {}
    for each in events:
        name = _plain(each.key)
        shares[name] = shares.get(name, 0.0) + getattr(each, spent) / total
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    multiply = sum(share for name, share in ordered if _multiplies(name))
    within = sum(share for name, share in ordered if name in FUSED)
    layers = fused(run) if within else None
    return {
        "operators": round(sum(each.count for each in events) / CALLS),
        "multiply": multiply,
        "multiply_alone": multiply - within * (layers["activation"] if layers else 0.0),
        "fused": layers,
        "shares": dict(ordered),
    }


def fused(run: Callable[[], Any]) -> dict[str, Any] | None:
    """What oneDNN's fused layers take within ``run``, and what the same without their activation.

    They are timed where they are called, in calls of ``run`` that take turns: one with what the
    layers have fused, one with "none". What is computed after a layer without is another number,
    and takes as long.

    Returns:
        ``layers``: how many a call of ``run`` has; ``ms`` and ``ms_without``: what they take
        together, milliseconds, medians over the turns; ``activation``: the share of it that is
        the activation's, the median over turns. None where there are no such layers.
    """
    turns = []
    for _ in range(TURNS):
        found = [_Layers(activated) for activated in (True, False)]
        for layers in found:
            with layers:
                run()
        turns.append([layers.seconds for layers in found])
    if not found[0].layers:
        return None
    ms, without = (1e3 * statistics.median(times) for times in zip(*turns))
    return {
        "layers": found[0].layers,
        "ms": ms,
        "ms_without": without,
        "activation": statistics.median(1 - none / activated for activated, none in turns),
    }


class _Layers(TorchDispatchMode):
    """Times the fused layers that are called within it, with what is fused or without."""

    def __init__(self, activated: bool) -> None:
        super().__init__()
        self.activated, self.layers, self.seconds = activated, 0, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() not in FUSED:
            return func(*args, **(kwargs or {}))
        if not self.activated:
            names = [one.name for one in func._schema.arguments]
            args = ["none" if name == "attr" else one for name, one in zip(names, args)]
        began = time.perf_counter()
        found = func(*args, **(kwargs or {}))
        self.seconds += time.perf_counter() - began
        self.layers += 1
        return found


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
