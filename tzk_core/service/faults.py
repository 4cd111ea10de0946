"""A device that this process can no longer use, and memory that ran out.

Memory that ran out passes. After an illegal access, a failed assertion on the device or the like
every later call fails, so the batch is answered and the process has to end (``handlers/base.py``),
for another to take its place.
"""

from __future__ import annotations

import logging
import re

import torch

from tzk_core.devices import free_memory, out_of_memory, works
from tzk_core.errors import ModelUnavailable, OutOfDeviceMemory, TzkError
from tzk_core.service.problems import as_error

__all__ = ["NO_MEMORY", "device_lost", "failed", "unavailable"]

NO_MEMORY = "there is not enough memory for this request; ask for less"

log = logging.getLogger(__name__)

# A device is the process's own, so that its loss is too.
_lost: list[str] = []


def failed(error: Exception) -> TzkError:
    """What to answer for ``error``; notices when the device was lost with it."""
    if isinstance(error, TzkError):
        return error
    if out_of_memory(error):
        free_memory()
        return OutOfDeviceMemory(NO_MEMORY)
    if re.search(r"CUDA|CUBLAS|CUDNN", str(error)) and not works(_device()):
        _lost.append(str(error))
        log.critical("The GPU can no longer be used by this process", exc_info=error)
        return unavailable()
    return as_error(error)


def device_lost() -> bool:
    """Whether this process has to end."""
    return bool(_lost)


def unavailable() -> ModelUnavailable:
    """The answer while the process ends."""
    return ModelUnavailable(
        "the GPU failed and this worker ends; another takes its place within seconds: send the "
        "request again"
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
