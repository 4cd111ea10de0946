"""Where work is done: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, and on how many processors.

And what a GPU needs that a CPU does not: pinned memory, arithmetic that repeats itself, and telling
memory that ran out (which passes) from a fault that ends the process's use of it (which does not).
"""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING, Any

from tzk_core._version import __version__
from tzk_core.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = [
    "conditions_on",
    "device_named",
    "free_memory",
    "hardware",
    "moved",
    "out_of_memory",
    "processors",
    "repeatable",
    "works",
]


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


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on ``device``; to a GPU by pinned memory, so that the processor need not wait.

    PyTorch keeps pinned blocks and hands one out again when its copy is done, so that batches of
    a few sizes find theirs.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def repeatable() -> None:
    """Lets a GPU give the same bits again in another process, and float32 its full 24 of them."""
    import torch

    torch.backends.cudnn.benchmark = False  # it would choose by what was fastest this time
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory, of a GPU or of the machine, ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and bool(
        re.search(r"CUDA error: out of memory|STATUS_ALLOC_FAILED|can't allocate memory", said)
    )


def free_memory() -> None:
    """Gives back what the allocator of a GPU keeps for later."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def works(device: torch.device) -> bool:
    """Whether ``device`` can still be used by this process.

    An illegal access or a failed assertion on a GPU makes every later call of the process fail, so
    one small call tells.
    """
    import torch

    try:
        (torch.ones(2, device=device) + 1).sum().item()
    except RuntimeError:
        return False
    return True


def hardware(device: torch.device) -> str:
    """What a device is: the name of the card, or the kind of processor."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def conditions_on(device: torch.device) -> dict[str, Any]:
    """What a report's figures depend on besides its inputs: versions, processor and threads."""
    import torch

    return {
        "tzk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "processor": hardware(device),
        "threads": torch.get_num_threads(),
    }
