"""A model on its device as it serves: its networks' precision settled, its parts run by a backend.

Handlers load by this, and so does whatever is to be compared with them (``benchmarks/``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tzk_core.devices import repeatable
from tzk_core.service.backends import use_backend
from tzk_core.service.precision import bfloat16_if_close
from tzk_core.service.service import Service

__all__ = ["NETWORKS", "load_as_served", "networks_on"]

NETWORKS = "TZK_NETWORKS"
"""Environment variable: bfloat16 or float32 in place of what the archive says, on a CPU too."""


def load_as_served(
    folder: str | Path,
    device: str | torch.device,
    archived: Mapping[str, Any] | None = None,
) -> tuple[Service, str]:
    """The service of a folder's model, and the name of the backend that runs it.

    Args:
        folder: a run folder or an unpacked archive.
        device: where it runs.
        archived: the ``tzk`` entry of the archive's manifest; for ``None`` what ``tzk archive``
            writes when it is told nothing.

    Raises:
        ModelUnavailable: the model or its backend cannot be loaded here.
    """
    device, archived = torch.device(device), archived or {}
    if device.type == "cuda":
        repeatable()
    service = Service.load(folder, device)
    if networks_on(device, archived) == "bfloat16":
        bfloat16_if_close(service.model)
    # After the precision, which the backend takes over.
    return service, use_backend(service.model, Path(folder), archived)


def networks_on(device: torch.device, archived: Mapping[str, Any]) -> str:
    """``bfloat16`` or ``float32``: processors without instructions for it are slower with it."""
    told = archived.get("networks", "float32")
    return os.environ.get(NETWORKS) or (told if device.type == "cuda" else "float32")
