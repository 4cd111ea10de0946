"""A model on its device as it serves: its networks' precision settled, its parts run by a backend.

Handlers load by this, and so does whatever is to be compared with them (``benchmarks/``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tzk_core.devices import repeatable
from tzk_core.errors import ModelUnavailable
from tzk_core.service.backends import use_backend
from tzk_core.service.precision import bfloat16_if_close
from tzk_core.service.service import Service

__all__ = ["NETWORKS", "load_as_served", "networks_on"]

NETWORKS = "TZK_NETWORKS"
"""Environment variable: bfloat16 or float32 in place of what the archive says, on a CPU too."""

PRECISIONS = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float32": "float32",
    "fp32": "float32",
}
"""What ``TZK_NETWORKS`` may be, in upper or lower case, and what it means."""

log = logging.getLogger(__name__)


def load_as_served(
    folder: str | Path,
    device: str | torch.device,
    archived: Mapping[str, Any] | None = None,
) -> tuple[Service, str]:
    """The service of a folder's model, and the name of the backend that runs it.

    Args:
        folder: a run folder or an unpacked archive.
        device: where it runs; the CPU instead where the backend has no other.
        archived: the ``tzk`` entry of the archive's manifest; for ``None`` what ``tzk archive``
            writes when it is told nothing.

    Raises:
        ModelUnavailable: the model or its backend cannot be loaded here, or ``TZK_NETWORKS`` is
            no precision.
    """
    archived = archived or {}
    device = _device_of(archived, torch.device(device))
    networks = networks_on(device, archived)
    if device.type == "cuda":
        repeatable()
    service = Service.load(folder, device)
    if networks == "bfloat16":
        bfloat16_if_close(service.model)
    # After the precision, which the backend takes over.
    return service, use_backend(service.model, Path(folder), archived)


def networks_on(device: torch.device, archived: Mapping[str, Any]) -> str:
    """``bfloat16`` or ``float32``: processors without instructions for it are slower with it.

    Raises:
        ModelUnavailable: ``TZK_NETWORKS`` is neither.
    """
    asked = os.environ.get(NETWORKS)
    if not asked:
        return archived.get("networks", "float32") if device.type == "cuda" else "float32"
    if asked.lower() not in PRECISIONS:
        raise ModelUnavailable(
            f"{NETWORKS}={asked} is no precision of networks: there are {', '.join(PRECISIONS)}"
        )
    chosen = PRECISIONS[asked.lower()]
    if chosen == "bfloat16" and archived.get("backend") == "onnx":
        log.warning("%s=%s changes nothing: an ONNX archive's files are float32", NETWORKS, asked)
        return "float32"
    return chosen


def _device_of(archived: Mapping[str, Any], device: torch.device) -> torch.device:
    """``device``, but for ONNX archives the CPU: each part would copy its inputs from a GPU."""
    if archived.get("backend") != "onnx" or device.type == "cpu":
        return device
    log.warning(
        "This ONNX archive is served from the CPU and not from %s, as onnxruntime runs it there "
        "alone: archive with --backend torch to use the GPU",
        device,
    )
    return torch.device("cpu")
